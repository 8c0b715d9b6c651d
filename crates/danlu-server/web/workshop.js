// What was made here: votes, models with their families and measures, and reports of data.
import { blob, get } from "./api.js";
import { element, table } from "./dom.js";
import { say } from "./words.js";

export async function votes(place) {
  const tally = await get("/studio/votes");
  const rows = Object.entries(tally.models).map(([model, one]) => [model, one.won, one.lost, one.tied, one.good, one.bad]);
  const head = [say("model"), say("won"), say("lost_votes"), say("tied"), say("good_count"), say("bad_count")];
  const made = tally.pairs + tally.judged > 0;
  place.replaceChildren(rows.length ? table(head, rows) : say("nothing"),
    element("p", { textContent: say("pairs", tally.pairs, tally.judged), testid: "preferences" }),
    made ? element("pre", { textContent: tally.command }) : "");
}

function measure(set) {
  const interval = typeof set.low === "number" ? ` (${set.low.toFixed(3)} – ${set.high.toFixed(3)})` : "";
  const verdict = set.verdict ? ` ${say(set.verdict === "better" ? "better_than" : set.verdict)}` : "";
  return element("div", { textContent: `${set.set}: ${set.label} ${set.value.toFixed(3)}${interval}${verdict}` });
}

export async function models(place, name) {
  if (name) return family(place, name);
  const found = await get("/studio/models");
  const rows = found.map((one) => [
    element("a", { href: `#models/${encodeURIComponent(one.id)}`, textContent: one.id }), one.level, say(one.standing), one.parent,
    element("div", {}, ...one.sets.map(measure), ...(one.gate?.reasons ?? []).map((why) => element("div", { className: "note", textContent: why }))),
  ]);
  place.replaceChildren(found.length ? table([say("model"), say("level"), say("standing"), say("parent"), say("measures")], rows) : say("nothing"));
  return undefined;
}

/** The picture of a family. As an image it can run nothing. */
async function family(place, name) {
  const picture = URL.createObjectURL(await blob(`/studio/models/${encodeURIComponent(name)}/lineage.svg`));
  const shown = element("img", { className: "family", src: picture, alt: `${say("family")}: ${name}`, testid: "family" });
  shown.addEventListener("load", () => URL.revokeObjectURL(picture));
  place.replaceChildren(element("p", {}, element("a", { href: "#models", textContent: `‹ ${say("models")}` })), shown);
}

const number = (count) => count.documents.toLocaleString();

function report({ name, report: one }) {
  if (!one) return element("div", { className: "card" }, element("h2", { textContent: name }));
  const dropped = one.dropped.map(([step, what]) => [step, number(what.count), what.rule, what.examples.map((example) => example.why).join("; ")]);
  const details = element("details", {}, element("summary", { textContent: say("dropped") }), table(["", say("documents"), "", ""], dropped));
  const counts = [[say("read"), number(one.read)], [say("kept_documents"), number(one.train)], [say("held"), number(one.held_out)]];
  return element("div", { className: "card" }, element("h2", { textContent: name }), table(["", say("documents")], counts), dropped.length ? details : "");
}

export async function data(place) {
  const found = await get("/studio/data");
  place.replaceChildren(...found.map(report), found.length ? "" : say("nothing"));
}
