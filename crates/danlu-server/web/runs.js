// Runs: which there are, and one of them as it goes on. The page reads their logs and asks them to stop; they live in their own processes.
import { get, post } from "./api.js";
import { curve } from "./curve.js";
import { button, element, table } from "./dom.js";
import { say } from "./words.js";

const EVERY = 2000;
let timer = 0;
let shown = 0;

export function leave() {
  clearTimeout(timer);
  shown += 1;
}

const state = (run) => say(run.state === "stopped" ? "stopped_run" : run.state);

export async function show(place, name) {
  leave();
  const turn = shown;
  if (name) return one(place, name, turn);
  const runs = await get("/studio/runs");
  const rows = runs.map((run) => [
    element("a", { href: `#runs/${encodeURIComponent(run.name)}`, textContent: run.name }), state(run), run.last?.step,
    run.last?.loss?.toFixed(4), run.model, new Date(run.updated * 1000).toLocaleString(),
  ]);
  place.replaceChildren(runs.length ? table([say("name"), "", say("step"), say("loss"), say("made"), ""], rows) : say("nothing"));
  later(() => show(place, undefined), turn, 5000);
  return undefined;
}

/** Does something after a while, unless another page has been opened. */
function later(work, turn, after = EVERY) {
  if (turn !== shown) return;
  timer = setTimeout(() => work().catch(() => later(work, turn, after)), after);
}

async function one(place, name, turn) {
  let rows = [];
  let from = 0;
  let drawn = "";
  const address = `/studio/runs/${encodeURIComponent(name)}`;
  const refresh = async () => {
    let answer = await get(`${address}?from=${from}`);
    for (;;) {
      // A run that went on from a checkpoint has cut its log, and writes those steps again.
      if (answer.begin === 0) rows = [];
      rows.push(...answer.rows);
      from = answer.end;
      if (!answer.more) break;
      answer = await get(`${address}?from=${from}`);
    }
    if (turn !== shown) return;
    // What has not changed stays, and with it what has the focus.
    const now = `${from} ${answer.run.state}`;
    if (now !== drawn) draw(place, answer, rows, address, refresh);
    drawn = now;
    later(refresh, turn);
  };
  await refresh();
}

function draw(place, { run, record, recipe, resumable }, rows, address, refresh) {
  const train = rows.filter((row) => row.kind === "train");
  const measured = rows.filter((row) => row.kind === "held_out" || row.kind === "final");
  const unit = measured.at(-1)?.measure ?? "bits_per_byte";
  const lines = [
    { kind: "train", label: say("loss"), points: train.map((row) => [row.step, row.loss]) },
    { kind: "held", label: `${say("held_out")} (${unit.replaceAll("_", " ")})`, points: measured.map((row) => [row.step, row[unit]]) },
  ];
  const problem = element("span", { className: "note" });
  const command = (what) => async () => {
    try {
      await post(`${address}/${what}`);
      await refresh();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const controls = element("div", { className: "row" }, element("strong", { textContent: state(run), testid: "run-state" }),
    element("span", { textContent: `${say("step")} ${train.at(-1)?.step ?? 0}`, testid: "run-step" }), run.model ? `${say("made")} ${run.model}` : "",
    run.state === "running" && button(say("stop"), command("stop"), { testid: "run-stop" }),
    resumable && button(say("resume"), command("resume"), { testid: "run-resume" }), problem);
  const samples = rows.filter((row) => row.kind === "sample").slice(-4).reverse();
  place.replaceChildren(element("p", {}, element("a", { href: "#runs", textContent: `‹ ${say("runs")}` })), element("h2", { textContent: run.name }),
    controls, curve(lines, say("loss")), comparison(record?.planned, train), element("h2", { textContent: say("samples") }),
    ...samples.map((row) => element("div", { className: "card" }, element("strong", { textContent: row.prompt }), ` ${row.text}`,
      element("p", { className: "note", textContent: `${say("step")} ${row.step}` }))),
    element("h2", { textContent: say("recipe") }), element("pre", { textContent: recipe ?? "" }));
}

/** What was planned beside what was measured so far. */
function comparison(planned, train) {
  const last = train.at(-1);
  if (!planned || !last) return "";
  const seconds = train.reduce((sum, row) => sum + (row.seconds ?? 0), 0);
  const memory = train.reduce((most, row) => Math.max(most, row.memory ?? 0), 0);
  const rows = [
    ["steps", planned.steps, last.step, 0], ["tokens", planned.tokens / 1e6, last.tokens / 1e6, 2],
    ["per_second", planned.tokens_per_second, seconds > 0 ? last.tokens / seconds : 0, 0],
    ["minutes", planned.seconds / 60, last.elapsed / 60, 2], ["memory", planned.memory / 1e6, memory / 1e6, 0],
  ];
  const row = ([name, plan, is, digits]) => [say(name), plan.toFixed(digits), is.toFixed(digits), plan > 0 ? (is / plan).toFixed(2) : "–"];
  return table(["", say("planned"), say("measured"), say("ratio")], rows.map(row));
}
