// Elements made of data. Text is always text: nothing here parses HTML.

const TEXT_MAX = 4096;
const SVG = "http://www.w3.org/2000/svg";

// Control characters and those that turn the direction of writing, made visible.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

export function visible(text) {
  return String(text).replace(HIDDEN, (c) => {
    const code = c.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : `\\u{${code.toString(16)}}`;
  });
}

/** Text that fits a page: at most `max` characters, and the number of the others. */
export function cut(text, max = TEXT_MAX) {
  const all = String(text);
  if (all.length <= max) return visible(all);
  return `${visible(all.slice(0, max))}… (${(all.length - max).toLocaleString("en")} more characters)`;
}

function fill(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(cut(child)));
  }
  return node;
}

/**
 * An element: `el("a", { href, class, on: { click } }, "text", node, [more])`.
 * Attributes that are null or false are left out; true is an empty attribute.
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(node.dataset, value);
    } else if (name === "value") {
      node.value = value;
    } else if (name === "checked") {
      node.checked = value;
    } else if (name === "href" && !safe(value)) {
      continue;
    } else {
      node.setAttribute(name, value === true ? "" : visible(value));
    }
  }
  return fill(node, children);
}

/** Links lead to pages, never to scripts. */
function safe(address) {
  try {
    return ["https:", "http:", "blob:"].includes(new URL(address, location.href).protocol);
  } catch {
    return false;
  }
}

/** Replaces what a node holds. */
export function show(node, ...children) {
  node.replaceChildren();
  return fill(node, children);
}

/** A data value of any length in one isolated span, whole on hover. */
export function data(text, max = 120) {
  const all = String(text ?? "");
  const long = all.length > max;
  return el("span", { class: "data", title: long ? cut(all, 2000) : null }, long ? `${visible(all.slice(0, max))}…` : visible(all));
}

const SHAPES = {
  loading: [["path", { d: "M8 1a7 7 0 1 1-7 7", fill: "none", stroke: "currentColor", "stroke-width": 2.5, "stroke-linecap": "round" }]],
  active: [["circle", { cx: 8, cy: 8, r: 7, fill: "currentColor" }]],
  idle: [["circle", { cx: 8, cy: 8, r: 5.8, fill: "none", stroke: "currentColor", "stroke-width": 2.4 }]],
  offloaded: [["path", { d: "M8 1v9M3.5 6.5 8 11l4.5-4.5M2 15h12", fill: "none", stroke: "currentColor", "stroke-width": 2.4 }]],
  stopping: [["rect", { x: 3.2, y: 3.2, width: 9.6, height: 9.6, rx: 2, fill: "none", stroke: "currentColor", "stroke-width": 2.4 }]],
  stopped: [["rect", { x: 2, y: 2, width: 12, height: 12, rx: 2, fill: "currentColor" }]],
  failed: [["path", { d: "M3 3l10 10M13 3 3 13", fill: "none", stroke: "currentColor", "stroke-width": 3, "stroke-linecap": "round" }]],
};

/** Two sheets: what can be copied. */
const SHEETS = [["rect", { x: 5.5, y: 5.5, width: 9, height: 9, rx: 2, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }],
  ["path", { d: "M10.5 2.8V2.5a1 1 0 0 0-1-1h-7a1 1 0 0 0-1 1v7a1 1 0 0 0 1 1h.3", fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linecap": "round" }]];

/** A small drawing beside or in place of a word; those who do not see it miss nothing. */
function glyph(shapes) {
  const icon = document.createElementNS(SVG, "svg");
  icon.setAttribute("viewBox", "0 0 16 16");
  icon.setAttribute("aria-hidden", "true");
  for (const [shape, attributes] of shapes) {
    const part = document.createElementNS(SVG, shape);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    icon.append(part);
  }
  return icon;
}

/** The status of something, as a shape and a word; `bare` where the word stands beside it anyway. */
export function status(word, large = false, bare = false) {
  const known = word in SHAPES ? word : "stopped";
  return el("span", { class: `status ${known}${large ? " large" : ""}` }, glyph(SHAPES[known]), bare ? null : word);
}

/** Our own words, in which `names` in backticks are code. */
export function prose(words) {
  return String(words).split("`").map((piece, index) => (index % 2 ? el("code", {}, piece) : piece));
}

/** A message that goes away by itself; errors stay longer. */
export function toast(text, kind = "good") {
  const box = document.getElementById("toasts");
  const note = el("div", { class: `note ${kind}`, role: kind === "bad" ? "alert" : null }, typeof text === "string" && text.length < 500 ? prose(text) : text);
  box.append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 15000 : 6000);
}

/** Copies a text; where the clipboard is refused, shows it selected. */
export async function copy(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
    toast(what);
  } catch {
    const area = el("textarea", { readonly: true, rows: 6, value: text, "aria-label": "Text to copy" });
    const dialog = el("dialog", { "aria-label": "Copy by hand" }, el("div", { class: "stack" },
      el("p", {}, "The browser does not let this page use the clipboard. Copy the text by hand:"), area,
      el("div", { class: "actions" }, el("button", { on: { click: () => dialog.close() } }, "Close"))));
    document.body.append(dialog);
    dialog.addEventListener("close", () => dialog.remove());
    dialog.showModal();
    area.select();
  }
}

/** Copies a text; `word` is seen beside the drawing. */
export function copyButton(text, label, word = null) {
  const value = () => (typeof text === "function" ? text() : text);
  return el("button", { type: "button", class: `tiny copy${word ? "" : " glyph"}`, "aria-label": `Copy ${label}`, title: word ? null : "Copy",
    on: { click: () => copy(value(), `Copied ${label}`) } }, glyph(SHEETS), word);
}

/** A block of code with a copy button; `set` changes the text. */
export function code(label) {
  let whole = "";
  const pre = el("pre", { tabindex: "0", "aria-label": label });
  const node = el("div", { class: "code with-copy" }, pre, copyButton(() => whole, label, "Copy"));
  return { node, set(text) { whole = text; show(pre, el("code", {}, cut(text, 20000))); }, get text() { return whole; } };
}

/** Asks before something is done. Resolves to true or false. */
export function confirm(question, { details = null, action = "OK", danger = false, cancel: back = "Cancel" } = {}) {
  return new Promise((resolve) => {
    const cancel = el("button", { type: "button", value: "no", on: { click: () => dialog.close("no") } }, back);
    const go = el("button", { type: "button", class: danger ? "danger primary" : "primary", on: { click: () => dialog.close("yes") } }, action);
    const dialog = el("dialog", { "aria-labelledby": "confirm-title" }, el("div", { class: "stack" },
      el("h2", { id: "confirm-title" }, question), details, el("div", { class: "actions" }, cancel, go)));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "yes"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A dialog with a title and a way to close it; returns its element, open. */
export function dialog(title, ...children) {
  const name = id("dialog");
  const box = el("dialog", { "aria-labelledby": name });
  box.append(el("div", { class: "stack" },
    el("div", { class: "head" }, el("h2", { id: name }, title),
      el("button", { type: "button", class: "plain", "aria-label": "Close", on: { click: () => box.close() } }, "✕")),
    ...children));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

/** Hands a text to the person as a file. */
export function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** A file that the person chooses, as text; null where it is too large. */
export async function readFile(input, bytesMax) {
  const [file] = input.files;
  if (!file) return null;
  if (file.size > bytesMax) throw new Error(`${file.name} is larger than ${bytesMax / 1024} KiB`);
  return { name: file.name, text: await file.text() };
}

let labels = 0;
/** A fresh id for a label and its control. */
export function id(prefix = "id") {
  labels += 1;
  return `${prefix}-${labels}`;
}

/** A labelled control. */
export function field(label, control, help = null) {
  control.id ||= id("field");
  const note = help && el("span", { class: "quiet small", id: `${control.id}-help` }, prose(help));
  if (note) control.setAttribute("aria-describedby", note.id);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, note);
}
