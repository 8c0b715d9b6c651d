// The page: its sections, language, colours and key.
import { key } from "./api.js";
import * as chat from "./chat.js";
import { $ } from "./dom.js";
import * as runs from "./runs.js";
import * as settings from "./settings.js";
import * as templates from "./templates.js";
import { switchLanguage, translate } from "./words.js";
import * as workshop from "./workshop.js";

const sections = {
  chat: chat.show, templates: templates.show, votes: workshop.votes, runs: runs.show, models: workshop.models, data: workshop.data,
};

function status(text) {
  $("status").textContent = text;
}

async function open() {
  const [name, rest] = location.hash.slice(1).split("/");
  const current = name in sections ? name : "chat";
  for (const one of document.querySelectorAll("[data-section]")) one.hidden = one.dataset.section !== current;
  for (const link of $("sections").children) link.setAttribute("aria-current", link.hash === `#${current}` ? "page" : "false");
  runs.leave();
  try {
    status("");
    await sections[current]($(current), rest === undefined ? undefined : decodeURIComponent(rest));
  } catch (error) {
    status(error.message);
  }
}

function toggleSettings(shown = !$("settings").classList.contains("open")) {
  $("settings").classList.toggle("open", shown);
  $("open-settings").setAttribute("aria-expanded", shown);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("danlu-theme", theme);
}

settings.begin();
chat.begin(status);
document.documentElement.dataset.theme = localStorage.getItem("danlu-theme") ?? "";
translate();
$("key").value = key.get();
$("key").addEventListener("change", async () => {
  key.set($("key").value);
  await open();
});
$("language").addEventListener("click", () => {
  switchLanguage();
  translate();
  open();
});
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme;
  const dark = now ? now === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});
$("open-settings").addEventListener("click", () => toggleSettings());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !chat.stop()) toggleSettings(false);
});
addEventListener("hashchange", open);
open();
