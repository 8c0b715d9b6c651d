// The page's only script: conversations with the models of this server, kept in this browser.

const words = {
  en: {
    model: "Model", history: "Conversations", settings: "Settings", theme: "Light or dark", language: "中文",
    new: "New conversation", ask: "Ask something. Enter sends, Shift+Enter begins a line.", begin: "Write the beginning of a text; the model goes on with it.",
    send: "Send", stop: "Stop", again: "Again", copy: "Copy", remove: "Remove", conversation: "Conversation",
    system: "System message", temperature: "Temperature", top_p: "Top p", top_k: "Top k (0: all)", repetition_penalty: "Repetition penalty",
    max_tokens: "Most tokens", seed: "Seed (empty: another each time)", key: "API key",
    kept: "Conversations are kept in this browser only. The key is forgotten when the tab is closed.",
    user: "You", assistant: "Model", speed: (tokens, rate) => `${tokens} tokens, ${rate} tokens/s`, cut: "cut off", stopped: "stopped",
    waiting: "reading …", failed: "The server cannot be reached.", empty: "Empty conversation",
  },
  zh: {
    model: "模型", history: "对话", settings: "设置", theme: "浅色或深色", language: "English",
    new: "新对话", ask: "输入问题。回车发送,Shift+回车换行。", begin: "写下文章的开头,模型会接着写。",
    send: "发送", stop: "停止", again: "重新生成", copy: "复制", remove: "删除", conversation: "对话内容",
    system: "系统提示", temperature: "温度", top_p: "Top p", top_k: "Top k(0 表示全部)", repetition_penalty: "重复惩罚",
    max_tokens: "最多词元数", seed: "随机种子(空:每次不同)", key: "API 密钥",
    kept: "对话只保存在本浏览器中。关闭标签页后密钥即被忘记。",
    user: "你", assistant: "模型", speed: (tokens, rate) => `${tokens} 个词元,每秒 ${rate} 个`, cut: "已截断", stopped: "已停止",
    waiting: "正在读取 …", failed: "无法连接服务器。", empty: "空对话",
  },
};

const $ = (id) => document.getElementById(id);
const numbers = ["temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed"];
const narrow = matchMedia("(max-width: 48rem)");

const defaults = {
  language: navigator.language.startsWith("zh") ? "zh" : "en", theme: "", model: "", system: "",
  temperature: "0.7", top_p: "0.95", top_k: "0", repetition_penalty: "1.05", max_tokens: "512", seed: "",
  chats: [], current: null,
};
const state = Object.assign({}, defaults, stored());
let models = [];
let answering = null;

function stored() {
  try {
    return JSON.parse(localStorage.getItem("danlu")) ?? {};
  } catch {
    return {};
  }
}

function save() {
  // A full store loses the oldest conversations, not the page.
  for (;;) {
    try {
      localStorage.setItem("danlu", JSON.stringify(state));
      return;
    } catch {
      if (state.chats.length < 2) return;
      state.chats.pop();
    }
  }
}

const say = (key) => words[state.language][key];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, attributes);
  made.append(...children);
  return made;
}

function chat() {
  let found = state.chats.find((one) => one.id === state.current);
  if (!found) {
    found = { id: crypto.randomUUID?.() ?? String(Date.now()), messages: [] };
    state.chats.unshift(found);
    state.current = found.id;
  }
  return found;
}

const canTalk = () => models.find((one) => one.id === state.model)?.chat ?? true;

function translate() {
  document.documentElement.lang = state.language;
  document.documentElement.dataset.theme = state.theme;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = say(one.dataset.text);
  for (const one of document.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", say(one.dataset.label));
    if (one.tagName === "BUTTON") one.title = say(one.dataset.label);
  }
  $("text").placeholder = say(canTalk() ? "ask" : "begin");
  $("language").textContent = say("language");
}

function article(message, index) {
  const text = element("p", { textContent: message.content });
  const made = element("article", { className: message.role }, element("h2", { textContent: say(message.role) ?? "" }), text);
  if (message.role !== "user") {
    const footer = element("footer");
    const note = [message.tokens > 0 && say("speed")(message.tokens, message.rate), message.end && say(message.end)];
    footer.append(note.filter(Boolean).join(" · "));
    if (!answering) {
      footer.append(element("button", { textContent: say("copy"), onclick: () => navigator.clipboard?.writeText(message.content) }));
      if (index === chat().messages.length - 1) footer.append(element("button", { textContent: say("again"), onclick: again }));
    }
    made.append(footer);
  }
  return made;
}

function show() {
  const { messages } = chat();
  $("messages").replaceChildren(...messages.map(article));
  $("messages").scrollTop = $("messages").scrollHeight;
  const title = (one) => one.messages.find((message) => message.role === "user")?.content.slice(0, 60) || say("empty");
  $("chats").replaceChildren(...state.chats.map((one) => {
    const open = element("button", { textContent: title(one), onclick: () => choose(one.id) });
    open.setAttribute("aria-current", one.id === state.current);
    const remove = element("button", { textContent: "×", title: say("remove"), onclick: () => forget(one.id) });
    remove.setAttribute("aria-label", say("remove"));
    return element("li", {}, open, remove);
  }));
  $("send").hidden = Boolean(answering);
  $("stop").hidden = !answering;
}

function choose(id) {
  answering?.abort();
  state.current = id;
  if (narrow.matches) toggle("history", false);
  save();
  show();
  $("text").focus();
}

function forget(id) {
  if (id === state.current) answering?.abort();
  state.chats = state.chats.filter((one) => one.id !== id);
  save();
  show();
}

function toggle(panel, open = !isOpen(panel)) {
  $(panel).classList.toggle(panel === "history" ? "closed" : "open", panel === "history" ? !open : open);
  $(`open-${panel}`).setAttribute("aria-expanded", open);
}

const isOpen = (panel) => (panel === "history" ? !$(panel).classList.contains("closed") : $(panel).classList.contains("open"));

function headers() {
  const key = sessionStorage.getItem("danlu-key");
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function load() {
  try {
    const response = await fetch("/v1/models", { headers: headers() });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error.message);
    models = body.data.filter((one) => one.completions);
    $("status").textContent = "";
  } catch (error) {
    $("status").textContent = error instanceof TypeError ? say("failed") : error.message;
    if (!isOpen("settings")) toggle("settings", true);
    return;
  }
  $("model").replaceChildren(...models.map((one) => element("option", { value: one.id, textContent: one.id })));
  if (!models.some((one) => one.id === state.model)) state.model = models[0]?.id ?? "";
  $("model").value = state.model;
  translate();
}

function request(messages) {
  const body = { model: state.model, stream: true, stream_options: { include_usage: true } };
  for (const name of numbers) if (state[name] !== "") body[name] = Number(state[name]);
  if (!canTalk()) return ["/v1/completions", { ...body, prompt: messages.map((one) => one.content).join("") }];
  const said = messages.filter((one) => one.role !== "error").map(({ role, content }) => ({ role, content }));
  if (state.system.trim()) said.unshift({ role: "system", content: state.system });
  return ["/v1/chat/completions", { ...body, messages: said }];
}

// The values of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      yield JSON.parse(line.slice(6));
    }
  }
}

async function answer() {
  const { messages } = chat();
  const [path, body] = request(messages);
  const message = { role: "assistant", content: "", tokens: 0 };
  messages.push(message);
  const own = (answering = new AbortController());
  show();
  const shown = $("messages").lastElementChild.querySelector("p");
  $("status").textContent = say("waiting");
  let first = 0;
  try {
    const response = await fetch(path, {
      method: "POST", headers: { "content-type": "application/json", ...headers() }, body: JSON.stringify(body), signal: own.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      const text = choice?.delta?.content ?? choice?.text ?? "";
      if (text) {
        first ||= performance.now();
        message.tokens += 1;
        message.content += text;
        const log = $("messages");
        const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
        shown.textContent = message.content;
        if (atEnd) log.scrollTop = log.scrollHeight;
      }
      if (choice?.finish_reason === "length") message.end = "cut";
      if (event.usage) message.tokens = event.usage.completion_tokens;
      const seconds = (performance.now() - first) / 1000;
      if (first && seconds > 0) {
        message.rate = (message.tokens / seconds).toFixed(1);
        $("status").textContent = say("speed")(message.tokens, message.rate);
      }
    }
  } catch (error) {
    if (error.name === "AbortError") {
      message.end = "stopped";
    } else {
      message.role = "error";
      message.content += (message.content && "\n") + (error instanceof TypeError ? say("failed") : error.message);
    }
  }
  if (answering === own) answering = null;
  $("status").textContent = "";
  save();
  show();
}

function again() {
  const { messages } = chat();
  while (messages.length && messages.at(-1).role !== "user") messages.pop();
  if (messages.length) answer();
}

function send(event) {
  event?.preventDefault();
  const content = canTalk() ? $("text").value.trim() : $("text").value;
  if (!content || answering) return;
  $("text").value = "";
  const { messages } = chat();
  // A question whose answer failed is asked anew.
  if (messages.at(-1)?.role === "error") messages.splice(-2);
  messages.push({ role: "user", content });
  answer();
}

$("ask").addEventListener("submit", send);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (answering) answering.abort();
  else for (const panel of ["settings", ...(narrow.matches ? ["history"] : [])]) toggle(panel, false);
});
$("stop").addEventListener("click", () => answering?.abort());
$("new").addEventListener("click", () => choose(state.chats.find((one) => !one.messages.length)?.id ?? null));
$("open-history").addEventListener("click", () => toggle("history"));
$("open-settings").addEventListener("click", () => toggle("settings"));
$("language").addEventListener("click", () => {
  state.language = state.language === "en" ? "zh" : "en";
  save();
  translate();
  show();
});
$("theme").addEventListener("click", () => {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  state.theme = dark ? "light" : "dark";
  save();
  translate();
});
$("model").addEventListener("change", () => {
  state.model = $("model").value;
  save();
  translate();
});
for (const name of ["system", ...numbers]) {
  $(name).value = state[name];
  $(name).addEventListener("input", () => {
    state[name] = $(name).value;
    save();
  });
}
$("key").value = sessionStorage.getItem("danlu-key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("danlu-key", $("key").value.trim());
  load();
});

toggle("history", !narrow.matches);
translate();
show();
load();
