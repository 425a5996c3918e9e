// A change before it is made: the file's lines and what happens to models, side by side.

import { confirm, data, dialog, el } from "./dom.js";

/** Lines around a change that are shown. */
const AROUND = 3;
/** Pairs of lines that are compared at most; beyond, all of them are shown as changed. */
const PAIRS_MAX = 4_000_000;

/** Both texts as one: `[sign, line]`, where the sign is "-", "+" or " ". */
export function difference(before, after) {
  const [old, fresh] = [before, after].map((text) => (text ? text.replace(/\r?\n$/, "").split(/\r?\n/) : []));
  let start = 0;
  while (start < old.length && start < fresh.length && old[start] === fresh[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < fresh.length - start && old[old.length - 1 - end] === fresh[fresh.length - 1 - end]) end += 1;
  const [a, b] = [old.slice(start, old.length - end), fresh.slice(start, fresh.length - end)];
  const same = (list) => list.map((line) => [" ", line]);
  return [...same(old.slice(0, start)), ...between(a, b), ...same(old.slice(old.length - end))];
}

/** The longest common lines of both stay. */
function between(a, b) {
  if (a.length * b.length > PAIRS_MAX) return [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
  const rest = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) rest[i][j] = a[i] === b[j] ? rest[i + 1][j + 1] + 1 : Math.max(rest[i + 1][j], rest[i][j + 1]);
  const all = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { all.push([" ", a[i]]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && rest[i + 1][j] >= rest[i][j + 1])) { all.push(["-", a[i]]); i += 1; }
    else { all.push(["+", b[j]]); j += 1; }
  }
  return all;
}

/** The lines as they are shown: far from a change they are left out. */
function drawn(lines) {
  const near = lines.map((_, place) => lines.slice(Math.max(0, place - AROUND), place + AROUND + 1).some(([sign]) => sign !== " "));
  const nodes = [];
  let left = false;
  lines.forEach(([sign, line], place) => {
    if (near[place]) nodes.push(el(sign === "-" ? "del" : sign === "+" ? "ins" : "span", {}, `${sign} ${line}`));
    else if (!left) nodes.push(el("span", { class: "quiet" }, "  ⋮"));
    left = !near[place];
  });
  return nodes;
}

/** What differs between two texts, as lines. */
export function diff(before, after, label = "Lines that change") {
  return el("pre", { class: "code diff", tabindex: "0", "aria-label": label }, drawn(difference(before, after)));
}

/**
 * Makes a change by way of its review. `send(query, headers)` calls the API. `revision` is that of the file which the
 * change was begun on; `theirs()` answers, where someone else was faster, `{ revision, began, now }`: the file as it was
 * begun on and as it is now. Resolves to the last answer; null where the person went back, and nothing was done.
 */
export async function reviewed(title, send, { revision = null, theirs = null, apply = "Apply" } = {}) {
  let on = revision;
  for (;;) {
    const headers = on ? { "if-match": `"${on}"` } : {};
    try {
      const tried = await send({ dry_run: 1 }, headers);
      if (!tried.review) return tried;
      const answer = await review(title, tried.file, tried.review, apply);
      return answer && await send({ drain: answer === "drain" ? 1 : null }, headers);
    } catch (error) {
      if (error.status !== 412 || !theirs) throw error;
      const found = await theirs();
      if (!(await overtaken(found))) return null;
      on = found.revision;
    }
  }
}

/** Says that someone else was faster, and asks whether to go on upon what they made. */
function overtaken({ began, now }) {
  return confirm("Someone else changed the file meanwhile", { details: el("div", { class: "stack" },
    el("p", {}, "Nothing was written, and what you wrote is kept. This is what they changed:"), diff(began, now, "Lines that someone else changed")), action: "Review mine upon theirs", cancel: "Back" });
}

/** Both changes of what was `began` with, key by key; where both changed the same, mine. */
export function merged(began, mine, theirs) {
  const table = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  if (same(mine, began)) return theirs;
  if (same(theirs, began)) return mine;
  if (Array.isArray(mine) && Array.isArray(theirs) && Array.isArray(began) && mine.length === theirs.length && mine.length === began.length) return mine.map((each, place) => merged(began[place], each, theirs[place]));
  if (![began, mine, theirs].every(table)) return mine;
  const keys = new Set([...Object.keys(theirs), ...Object.keys(mine)]);
  return Object.fromEntries([...keys].map((key) => [key, merged(began[key], mine[key], theirs[key])]).filter(([, value]) => value !== undefined));
}

/** Shows what a try of a change said, and asks. Resolves to "apply", "drain" or null. */
function review(title, file, { before = null, after, plan }, word) {
  return new Promise((resolve) => {
    const happens = [...plan.deployments.map((each) => el("li", {}, el("strong", {}, data(each.deployment, 120)), ": ", data(each.words, 600), (each.memory ?? []).map((words) => el("div", { class: "small quiet" }, "GPU memory: ", data(words, 600))))), ...plan.routes.map((words) => el("li", {}, data(words, 600)))];
    const apply = el("button", { type: "button", class: "primary", on: { click: () => box.close("apply") } }, word);
    const drain = plan.deployments.some((each) => each.waits) && el("button", { type: "button", on: { click: () => box.close("drain") } }, "Apply and drain now");
    const box = dialog(title, el("div", { class: "review" },
      el("section", { class: "stack" }, el("h3", {}, "The file"), el("p", { class: "quiet small" }, data(file, 200)),
        diff(before, after)),
      el("section", { class: "stack" }, el("h3", {}, "What happens"),
        happens.length ? el("ul", {}, happens) : el("p", {}, "No model and no route is touched: requests and workers go on as they are."))),
      drain && el("p", { class: "quiet small" }, "Drained now, a worker takes no new requests: they wait. Those inside may finish, then it is replaced."),
      el("div", { class: "actions" }, el("button", { type: "button", on: { click: () => box.close("") } }, "Back"), drain, apply));
    box.classList.add("large");
    box.addEventListener("close", () => resolve(box.returnValue || null));
    apply.focus();
  });
}
