// What the page says, in both languages.
const words = {
  en: {
    language: "中文", theme: "Light or dark", settings: "Settings", history: "Conversations", sections: "Sections",
    chat: "Chat", templates: "Templates", votes: "Votes", runs: "Runs", models: "Models", data: "Data",
    model: "Model", beside: "Second model, side by side", none: "one model", new: "New conversation", empty: "Empty conversation",
    ask: "Ask something. Enter sends, Shift+Enter begins a line.", begin: "Write the beginning of a text; the model goes on with it.",
    send: "Send", stop: "Stop", again: "Again", edit: "Edit", copy: "Copy", remove: "Remove", save: "Save", cancel: "Cancel", use: "Use",
    good: "Good answer", bad: "Bad answer", better: "This one is better", tie: "As good", earlier: "Earlier", later: "Later",
    conversation: "Conversation", user: "You", assistant: "Model", system: "System message", temperature: "Temperature", top_p: "Top p",
    top_k: "Top k (0: all)", repetition_penalty: "Repetition penalty", max_tokens: "Most tokens", seed: "Seed (empty: another each time)",
    key: "API key", kept: "Conversations are kept on the server. The key is forgotten when the tab is closed.",
    waiting: "reading …", failed: "The server cannot be reached.", length: "cut off", stopped: "stopped", lost: "lost with the server",
    failure: "failed", speed: (tokens, rate, first) => `${tokens} tokens, ${rate} tokens/s, first after ${first} s`,
    name: "Name", question: "Question, with {{variables}}", examples: "Examples", example_user: "Question", example_assistant: "Answer",
    add_example: "Add an example", new_template: "New template", nothing: "Nothing yet.",
    won: "won", lost_votes: "lost", tied: "as good", good_count: "good", bad_count: "bad",
    pairs: (pairs, judged) => `${pairs} pairs and ${judged} single judgements, ready for training:`,
    running: "running", stopping: "stopping", finished: "finished", stopped_run: "stopped", resume: "Go on", recipe: "Recipe",
    planned: "planned", measured: "measured", ratio: "ratio", steps: "steps", tokens: "M tokens", per_second: "tokens/s", minutes: "minutes",
    memory: "memory MB", samples: "Samples", loss: "training loss", held_out: "held out", step: "step", made: "made",
    level: "level", standing: "standing", parent: "made from", measures: "measures", family: "Family", documents: "documents",
    read: "read", kept_documents: "to train on", held: "held out", dropped: "dropped", current: "current", passed: "passed",
    candidate: "candidate", withdrawn: "withdrawn", better_than: "better", worse: "worse", same: "same", sure: "Remove it for good?",
  },
  zh: {
    language: "English", theme: "浅色或深色", settings: "设置", history: "对话", sections: "栏目",
    chat: "聊天", templates: "模板", votes: "投票", runs: "训练", models: "模型", data: "数据",
    model: "模型", beside: "并排的第二个模型", none: "一个模型", new: "新对话", empty: "空对话",
    ask: "输入问题。回车发送,Shift+回车换行。", begin: "写下文章的开头,模型会接着写。",
    send: "发送", stop: "停止", again: "重新生成", edit: "编辑", copy: "复制", remove: "删除", save: "保存", cancel: "取消", use: "使用",
    good: "回答好", bad: "回答不好", better: "这个更好", tie: "一样好", earlier: "上一个", later: "下一个",
    conversation: "对话内容", user: "你", assistant: "模型", system: "系统提示", temperature: "温度", top_p: "Top p",
    top_k: "Top k(0 表示全部)", repetition_penalty: "重复惩罚", max_tokens: "最多词元数", seed: "随机种子(空:每次不同)",
    key: "API 密钥", kept: "对话保存在服务器上。关闭标签页后密钥即被忘记。",
    waiting: "正在读取 …", failed: "无法连接服务器。", length: "已截断", stopped: "已停止", lost: "服务器中断,已丢失",
    failure: "失败", speed: (tokens, rate, first) => `${tokens} 个词元,每秒 ${rate} 个,首个用时 ${first} 秒`,
    name: "名称", question: "问题,可含 {{变量}}", examples: "示例", example_user: "问", example_assistant: "答",
    add_example: "添加示例", new_template: "新模板", nothing: "还没有内容。",
    won: "胜", lost_votes: "负", tied: "平", good_count: "好", bad_count: "不好",
    pairs: (pairs, judged) => `${pairs} 对偏好和 ${judged} 个单独评价,可用于训练:`,
    running: "进行中", stopping: "正在停止", finished: "已完成", stopped_run: "已停止", resume: "继续", recipe: "配方",
    planned: "计划", measured: "实测", ratio: "比值", steps: "步数", tokens: "百万词元", per_second: "词元/秒", minutes: "分钟",
    memory: "内存 MB", samples: "样例", loss: "训练损失", held_out: "留出集", step: "步", made: "得到",
    level: "级别", standing: "状态", parent: "来自", measures: "测量", family: "家谱", documents: "文档",
    read: "读取", kept_documents: "用于训练", held: "留出", dropped: "丢弃", current: "当前", passed: "通过",
    candidate: "候选", withdrawn: "已撤回", better_than: "更好", worse: "更差", same: "相同", sure: "确定永久删除吗?",
  },
};

let language = localStorage.getItem("danlu-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export const say = (key, ...values) => {
  const found = words[language][key] ?? key;
  return typeof found === "function" ? found(...values) : found;
};

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("danlu-language", language);
}

/** Writes the words into what is marked with data-text, and names what is marked with data-label. */
export function translate(root = document) {
  document.documentElement.lang = language;
  for (const one of root.querySelectorAll("[data-text]")) one.textContent = say(one.dataset.text);
  for (const one of root.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", say(one.dataset.label));
    if (one.tagName === "BUTTON") one.title = say(one.dataset.label);
  }
}
