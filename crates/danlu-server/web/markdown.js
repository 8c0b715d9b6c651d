// Markdown as elements of the page. Whatever a model writes becomes text nodes of elements made here: nothing is parsed as HTML, and links
// lead to http and https only.
import { element } from "./dom.js";

const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([^*\n]+(?:\*[^*\n]+)*)\*\*|\*([^*\s][^*\n]*)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)/g;

/** A paragraph longer than this is shown as it is: looking for pairs of marks in it would take too long. */
const LONGEST = 10000;

function inline(text, depth = 0) {
  if (text.length > LONGEST) return [text];
  const parts = [];
  let at = 0;
  for (const match of depth < 4 ? text.matchAll(INLINE) : []) {
    parts.push(text.slice(at, match.index));
    const [whole, , code, strong, emphasis, label, address] = match;
    if (code !== undefined) parts.push(element("code", { textContent: code.trim() || code }));
    else if (strong !== undefined) parts.push(element("strong", {}, ...inline(strong, depth + 1)));
    else if (emphasis !== undefined) parts.push(element("em", {}, ...inline(emphasis, depth + 1)));
    else parts.push(element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...inline(label, depth + 1)));
    at = match.index + whole.length;
  }
  parts.push(text.slice(at));
  return parts.filter((part) => part !== "");
}

function fenced(language, lines, copy) {
  const text = lines.join("\n");
  const head = element("div", { className: "code-head" }, element("span", { textContent: language }));
  if (copy) head.append(copy(text));
  return element("div", { className: "code" }, head, element("pre", {}, element("code", { textContent: text })));
}

/** Elements for a text; `copy` makes the button of a block of code. */
export function markdown(text, copy) {
  const blocks = [];
  const lines = text.split("\n");
  let paragraph = [];
  const close = () => {
    if (paragraph.length) blocks.push(element("p", {}, ...inline(paragraph.join("\n"))));
    paragraph = [];
  };
  const item = /^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines[i];
    const fence = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)\s*$/.exec(line);
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (fence) {
      close();
      const body = [];
      // A block that is still being written goes to the end.
      while (i + 1 < lines.length && !lines[i + 1].trim().startsWith(fence[1])) body.push(lines[(i += 1)]);
      i += 1;
      blocks.push(fenced(fence[2], body, copy));
    } else if (heading) {
      close();
      blocks.push(element(`h${Math.min(heading[1].length + 2, 6)}`, {}, ...inline(heading[2])));
    } else if (item.test(line)) {
      close();
      const numbered = item.exec(line)[2];
      const list = element(numbered ? "ol" : "ul", numbered ? { start: Number(numbered) } : {});
      for (; i < lines.length && item.test(lines[i]); i += 1) list.append(element("li", {}, ...inline(item.exec(lines[i])[3])));
      i -= 1;
      blocks.push(list);
    } else if (/^\s*>/.test(line)) {
      close();
      const quoted = [];
      for (; i < lines.length && /^\s*>/.test(lines[i]); i += 1) quoted.push(lines[i].replace(/^\s*>\s?/, ""));
      i -= 1;
      blocks.push(element("blockquote", {}, ...inline(quoted.join("\n"))));
    } else if (!line.trim()) close();
    else paragraph.push(line);
  }
  close();
  return blocks;
}
