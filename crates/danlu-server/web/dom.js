export const $ = (id) => document.getElementById(id);

/** Makes an element. Text is only ever set as text, never as HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "testid") {
      if (value) made.dataset.testid = value;
    } else if (key.startsWith("aria-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Makes a part of a picture. */
export function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export const button = (text, onclick, attributes = {}) => element("button", { type: "button", textContent: text, onclick, ...attributes });

/** A table of texts; the first row is its head. */
export function table(head, rows) {
  const cells = (kind, row) => element("tr", {}, ...row.map((cell) => element(kind, {}, cell instanceof Node ? cell : String(cell ?? "–"))));
  const made = element("table", {}, element("thead", {}, cells("th", head)), element("tbody", {}, ...rows.map((row) => cells("td", row))));
  return element("div", { className: "scroll" }, made);
}
