// Prompts to use again, with variables and examples.
import { get, post, put, remove } from "./api.js";
import { goTo } from "./chat.js";
import { button, element } from "./dom.js";
import { say } from "./words.js";

function field(label, value, rows, testid) {
  const input = rows ? element("textarea", { value, rows, testid }) : element("input", { value, testid });
  return { input, shown: element("label", {}, element("span", { textContent: label }), input) };
}

function editor(place, template) {
  const name = field(say("name"), template.name, 0, "template-name");
  const system = field(say("system"), template.system, 3, "template-system");
  const body = field(say("question"), template.body, 4, "template-body");
  const examples = element("div", { className: "fields" });
  const pairs = [];
  const add = (example = { user: "", assistant: "" }) => {
    const pair = [field(say("example_user"), example.user, 2), field(say("example_assistant"), example.assistant, 2)];
    pairs.push(pair);
    examples.append(...pair.map((one) => one.shown));
  };
  template.examples.forEach(add);
  const problem = element("p", { className: "note" });
  const save = async () => {
    // An example left empty is none.
    const filled = pairs.map(([user, assistant]) => ({ user: user.input.value, assistant: assistant.input.value }));
    const given = {
      name: name.input.value, system: system.input.value, body: body.input.value,
      examples: filled.filter((one) => one.user.trim() || one.assistant.trim()),
    };
    try {
      await (template.id ? put(`/studio/templates/${template.id}`, given) : post("/studio/templates", given));
      await show(place);
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const row = element("div", { className: "row" }, button(say("add_example"), () => add()), button(say("save"), save, { testid: "template-save" }),
    button(say("cancel"), () => show(place)));
  place.replaceChildren(element("div", { className: "fields" }, name.shown, system.shown, body.shown,
    element("h2", { textContent: say("examples") }), examples, row, problem));
}

function card(place, template) {
  const inputs = template.variables.map((name) => [name, field(name, "", 2)]);
  const problem = element("p", { className: "note" });
  const act = async (work) => {
    try {
      await work();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const use = () => act(async () => {
    const values = Object.fromEntries(inputs.map(([name, one]) => [name, one.input.value]));
    const made = await post(`/studio/templates/${template.id}/use`, { values });
    await goTo(made.conversation, made.text);
    location.hash = "chat";
  });
  const forget = () => act(async () => {
    if (!confirm(say("sure"))) return;
    await remove(`/studio/templates/${template.id}`);
    await show(place);
  });
  return element("div", { className: "card fields" }, element("h2", { textContent: template.name }), element("pre", { textContent: template.body }),
    ...inputs.map(([, one]) => one.shown),
    element("div", { className: "row" }, button(say("use"), use, { testid: "template-use" }), button(say("edit"), () => editor(place, template)),
      button(say("remove"), forget)), problem);
}

export async function show(place) {
  const templates = await get("/studio/templates");
  const empty = { name: "", system: "", body: "", examples: [] };
  place.replaceChildren(element("p", {}, button(say("new_template"), () => editor(place, empty), { testid: "template-new" })),
    ...templates.map((one) => card(place, one)), templates.length ? "" : say("nothing"));
}
