// One message of a conversation, with what can be done with it.
import { button, element, svg } from "./dom.js";
import { markdown } from "./markdown.js";
import { say } from "./words.js";

const copy = (text) => button(say("copy"), () => navigator.clipboard?.writeText(text));

/** A thumb, drawn, since not every machine has a font with one. */
function thumb(down) {
  const picture = svg("svg", { class: down ? "icon down" : "icon", viewBox: "0 0 24 24", "aria-hidden": "true" });
  picture.append(svg("path", { d: "M2 10h4v11H2zM8 10l4-8c1.7 0 3 1.2 3 2.8L14.4 9H20c1.4 0 2.3 1.1 2 2.4l-1.7 7.6c-.3 1.2-1.2 2-2.4 2H8z" }));
  return picture;
}

/** Tokens and speed of an answer, and how it ended if not by itself. */
function note(message) {
  const parts = [];
  if (message.tokens > 0 && message.seconds) {
    const first = message.first_seconds ?? 0;
    const rate = message.tokens / Math.max(message.seconds - first, 0.001);
    parts.push(say("speed", message.tokens, rate.toFixed(1), first.toFixed(2)));
  }
  if (message.finish && message.finish !== "stop") parts.push(say(message.finish === "failed" ? "failure" : message.finish));
  return parts.join(" · ");
}

/** The other versions of a message. */
function versions(message, actions) {
  const all = actions.siblings(message);
  const at = all.findIndex((one) => one.id === message.id);
  if (all.length < 2) return [];
  const turn = (to, text, label) => button(text, () => actions.turn(all[to]), { disabled: !all[to], "aria-label": say(label) });
  return [turn(at - 1, "‹", "earlier"), element("span", { textContent: `${at + 1}/${all.length}`, testid: "versions" }), turn(at + 1, "›", "later")];
}

export function article(message, actions, busy) {
  const own = message.role === "user";
  const content = element("div", { className: "content", testid: own ? "question" : "answer" });
  if (own) content.textContent = message.content;
  else content.append(...markdown(message.content, copy));
  const footer = element("footer", {}, note(message));
  if (!busy) {
    footer.append(...versions(message, actions), copy(message.content));
    if (own) footer.append(button(say("edit"), () => actions.edit(message), { testid: "edit" }));
    else {
      const judge = (value, label) => {
        const made = button("", () => actions.thumb(message, value), {
          "aria-label": say(label), title: say(label), "aria-pressed": String(message.thumb === value), testid: label,
        });
        made.append(thumb(value < 0));
        return made;
      };
      footer.append(button(say("again"), () => actions.again(message), { testid: "again" }), judge(1, "good"), judge(-1, "bad"));
    }
  }
  const who = own ? say("user") : message.model || say("assistant");
  const made = element("article", { className: message.role }, element("h2", { textContent: who }), content, footer);
  made.dataset.id = message.id;
  return made;
}
