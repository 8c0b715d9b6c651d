// How tokens are drawn, kept in this browser; the system message belongs to a conversation.
import { $ } from "./dom.js";

const numbers = ["temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed"];
const defaults = { temperature: "0.7", top_p: "0.95", top_k: "0", repetition_penalty: "1.05", max_tokens: "512", seed: "" };

function stored() {
  try {
    return JSON.parse(localStorage.getItem("danlu-sampling")) ?? {};
  } catch {
    return {};
  }
}

const values = { ...defaults, ...stored() };

export function begin() {
  for (const name of numbers) {
    $(name).value = values[name];
    $(name).addEventListener("input", () => {
      values[name] = $(name).value;
      localStorage.setItem("danlu-sampling", JSON.stringify(values));
    });
  }
}

/** What a request says of how tokens are drawn. */
export function sampling() {
  const filled = numbers.filter((name) => values[name] !== "" && values[name] !== undefined);
  return Object.fromEntries(filled.map((name) => [name, Number(values[name])]));
}
