// Conversations, which the server keeps as trees: the path to `leaf` is shown, and a message's siblings are its other versions.
import { get, post, put, remove, stream } from "./api.js";
import { $, button, element } from "./dom.js";
import { article } from "./message.js";
import { sampling } from "./settings.js";
import { say } from "./words.js";

const narrow = matchMedia("(max-width: 48rem)");
let models = [];
let list = [];
let open = null;
let answering = null;
let status = () => {};

const children = (parent, role) => open.messages.filter((one) => one.parent === parent && one.role === role);
const canTalk = () => models.find((one) => one.id === $("model").value)?.chat ?? true;

function path() {
  const found = [];
  for (let id = open?.leaf ?? null; id !== null;) {
    const message = open.messages.find((one) => one.id === id);
    if (!message) break;
    found.unshift(message);
    id = message.parent;
  }
  return found;
}

/** The two answers that are looked at side by side: the shown one and the newest other one, of another model unless a model stands beside itself. */
function pairOf(message) {
  const beside = $("beside").value;
  if (!beside || message.role !== "assistant") return null;
  const itself = beside === $("model").value;
  const others = children(message.parent, "assistant").filter((one) => one.id !== message.id && (one.model === message.model) === itself);
  const other = others.at(-1);
  return other && (message.id < other.id ? [message, other] : [other, message]);
}

const actions = {
  edit: (message) => edit(message),
  again: (message) => answer([message.model ?? $("model").value], message.parent),
  thumb: (message, thumb) => act(async () => {
    Object.assign(message, await put(`/studio/messages/${message.id}/thumb`, { thumb: message.thumb === thumb ? null : thumb }));
  }),
  turn: (message) => act(() => setLeaf(message.id)),
  siblings: (message) => children(message.parent, message.role),
};

function votes([first, second]) {
  const found = open.votes.find((one) => one.first === first.id && one.second === second.id);
  const cast = (winner) => act(async () => {
    await post("/studio/votes", { first: first.id, second: second.id, winner });
    if (winner !== null) await setLeaf(winner);
    await reload();
  });
  const one = (text, winner, testid) => button(text, () => cast(winner), { testid, "aria-pressed": String(found?.winner === winner) });
  return element("div", { className: "vote" }, one(`← ${say("better")}`, first.id, "vote-first"), one(say("tie"), null, "vote-tie"),
    one(`${say("better")} →`, second.id, "vote-second"));
}

function draw() {
  const parts = [];
  for (const message of path()) {
    const pair = pairOf(message);
    const busy = Boolean(answering);
    if (!pair) parts.push(article(message, actions, busy));
    else {
      parts.push(element("div", { className: "pair", testid: "pair" }, ...pair.map((one) => article(one, actions, busy))));
      if (!busy) parts.push(votes(pair));
    }
  }
  $("messages").replaceChildren(...parts);
  $("messages").scrollTop = $("messages").scrollHeight;
  $("chats").replaceChildren(...list.map((one) => {
    const title = button(one.title || say("empty"), () => choose(one.id), { "aria-current": String(one.id === open?.id) });
    return element("li", {}, title, button("×", () => forget(one.id), { title: say("remove"), "aria-label": say("remove") }));
  }));
  $("send").hidden = Boolean(answering);
  $("stop").hidden = !answering;
  $("text").placeholder = say(canTalk() ? "ask" : "begin");
}

/** Does something that may fail, and shows what came of it. */
async function act(work) {
  try {
    status("");
    await work();
  } catch (error) {
    status(error instanceof TypeError ? say("failed") : error.message);
  }
  draw();
}

async function setLeaf(id) {
  // The newest of what follows it is shown with it.
  for (let next = id; next; next = open.messages.findLast((one) => one.parent === id)?.id) id = next;
  await put(`/studio/conversations/${open.id}`, { leaf: id });
  open.leaf = id;
}

async function reload() {
  if (open) open = await get(`/studio/conversations/${open.id}`);
  list = await get("/studio/conversations");
}

const choose = (id) => act(async () => {
  stop();
  open = id === null ? null : await get(`/studio/conversations/${id}`);
  localStorage.setItem("danlu-conversation", id ?? "");
  $("system").value = open?.system ?? "";
  if (narrow.matches) toggle(false);
  $("text").focus();
});

/** Opens a conversation that was made elsewhere, with a question to send. */
export async function goTo(conversation, text) {
  await choose(conversation.id);
  list = await get("/studio/conversations");
  $("text").value = text;
  draw();
}

const forget = (id) => act(async () => {
  if (!confirm(say("sure"))) return;
  if (open?.id === id) {
    stop();
    open = null;
  }
  await remove(`/studio/conversations/${id}`);
  await reload();
});

function toggle(shown = $("history").classList.contains("closed")) {
  $("history").classList.toggle("closed", !shown);
  $("open-history").setAttribute("aria-expanded", shown);
}

async function ask(parent, content) {
  if (!open) {
    open = await post("/studio/conversations", { system: $("system").value });
    localStorage.setItem("danlu-conversation", open.id);
  }
  const message = await post(`/studio/conversations/${open.id}/messages`, { parent, content });
  open.messages.push(message);
  open.leaf = message.id;
  await answer([$("model").value, $("beside").value].filter(Boolean), message.id);
}

/** One answer, shown as it comes; `again` says how many of this model are asked for before it, which with one seed would all be the same. */
async function one(model, parent, signal, again) {
  const shown = { id: -Math.random(), parent, role: "assistant", content: "", model, finish: null, tokens: 0 };
  open.messages.push(shown);
  open.leaf = shown.id;
  draw();
  const began = performance.now();
  let first = 0;
  const body = { parent, model, ...sampling() };
  if (body.seed !== undefined) body.seed += again;
  for await (const event of stream(`/studio/conversations/${open.id}/answers`, body, signal)) {
    if (event.error) throw new Error(event.error.message);
    if (!event.text) continue;
    first ||= performance.now();
    shown.content += event.text;
    shown.tokens += 1;
    // The article is found anew, since the other answer's may have been drawn since.
    const place = $("messages").querySelector(`[data-id="${shown.id}"] .content`);
    const log = $("messages");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    if (place) place.textContent = shown.content;
    if (atEnd) log.scrollTop = log.scrollHeight;
    const rate = shown.tokens / Math.max((performance.now() - first) / 1000, 0.001);
    status(say("speed", shown.tokens, rate.toFixed(1), ((first - began) / 1000).toFixed(2)));
  }
}

/** Asks models to answer a question, at the same time. */
async function answer(asked, parent) {
  const own = (answering = new AbortController());
  const conversation = open.id;
  status(say("waiting"));
  const ends = await Promise.allSettled(asked.map((model, i) => one(model, parent, own.signal, asked.indexOf(model) < i ? 1 : 0)));
  const failed = ends.find((end) => end.status === "rejected" && end.reason.name !== "AbortError");
  if (answering === own) answering = null;
  await act(async () => {
    // What was stopped is kept a moment later.
    for (let i = 0; i < 20; i += 1) {
      if (open?.id !== conversation) return;
      await reload();
      if (open.messages.every((message) => message.role === "user" || message.finish)) break;
      await new Promise((done) => setTimeout(done, 100));
    }
    if (failed) throw failed.reason;
  });
}

export function stop() {
  const was = Boolean(answering);
  answering?.abort();
  return was;
}

function send(event) {
  event?.preventDefault();
  const content = canTalk() ? $("text").value.trim() : $("text").value;
  if (!content.trim() || answering) return;
  $("text").value = "";
  // A question whose answer never began is asked anew beside it.
  const last = path().at(-1);
  act(() => ask(last ? (last.role === "assistant" ? last.id : last.parent) : null, content));
}

function edit(message) {
  const box = element("textarea", { value: message.content, rows: 4, testid: "edit-text" });
  const save = button(say("send"), () => box.value.trim() && act(() => ask(message.parent, box.value)), { testid: "edit-send" });
  const place = $("messages").querySelector(`[data-id="${message.id}"]`);
  place?.replaceChildren(element("div", { className: "fields" }, box, element("div", { className: "row" }, save, button(say("cancel"), draw))));
  box.focus();
}

async function load() {
  const found = await get("/v1/models");
  models = found.data.filter((one) => one.completions);
  const option = (one) => element("option", { value: one.id, textContent: one.id });
  const fill = (select, options, name) => {
    const was = select.value || localStorage.getItem(name) || "";
    select.replaceChildren(...options);
    if ([...select.options].some((one) => one.value === was)) select.value = was;
  };
  fill($("model"), models.map(option), "danlu-model");
  fill($("beside"), [element("option", { value: "", textContent: say("none") }), ...models.map(option)], "danlu-beside");
  list = await get("/studio/conversations");
}

export async function show() {
  await act(async () => {
    await load();
    const last = Number(localStorage.getItem("danlu-conversation"));
    if (!open && list.some((one) => one.id === last)) open = await get(`/studio/conversations/${last}`);
    if (open) $("system").value = open.system;
  });
}

export function begin(tell) {
  status = tell;
  toggle(!narrow.matches);
  $("ask").addEventListener("submit", send);
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  $("stop").addEventListener("click", stop);
  $("new").addEventListener("click", () => choose(null));
  $("open-history").addEventListener("click", () => toggle());
  for (const name of ["model", "beside"]) {
    $(name).addEventListener("change", () => {
      localStorage.setItem(`danlu-${name}`, $(name).value);
      draw();
    });
  }
  $("system").addEventListener("change", () => act(async () => {
    if (open) Object.assign(open, await put(`/studio/conversations/${open.id}`, { system: $("system").value }));
  }));
}
