// A box that leads to a field of a long form: what fits is a menu below it.

import { data, el, id, show } from "./dom.js";

/** Lines of the menu. */
const HITS_MAX = 12;

/** `entries()`: `[{ title, where, words, reveal }]`; `words` is what is looked in, `reveal()` leads there. */
export function finder(label, entries) {
  const list = el("ul", { class: "find-hits", role: "listbox", id: id("hits"), "aria-label": label, hidden: true });
  const told = el("p", { class: "sr", role: "status" });
  const input = el("input", { type: "search", class: "filter", placeholder: `${label}…  ( / )`, "aria-label": label, role: "combobox", autocomplete: "off", spellcheck: "false",
    "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list",
    on: { input: look, focus: look, keydown: move, blur: close } });
  let hits = [];
  let at = 0;

  function look() {
    const words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (each) => words.every((word) => each.words.toLowerCase().includes(word));
    const first = (each) => Number(!each.title.toLowerCase().includes(words[0]));
    hits = words.length ? entries().filter(fits).sort((a, b) => first(a) - first(b)) : [];
    at = 0;
    draw(words.length > 0);
  }

  function draw(open) {
    list.hidden = !open;
    input.setAttribute("aria-expanded", String(open));
    const shown = hits.slice(0, HITS_MAX);
    show(list, shown.map((hit, index) => el("li", { role: "option", id: `${list.id}-${index}`, "aria-selected": String(index === at),
      on: { pointerdown: (event) => { event.preventDefault(); go(index); } } },
      el("span", {}, data(hit.title, 80)), el("span", { class: "quiet small" }, data(hit.where, 160)))),
      hits.length > shown.length ? el("li", { role: "option", "aria-disabled": "true", "aria-selected": "false", class: "quiet small" }, `and ${hits.length - shown.length} more: type on`) : null,
      open && !hits.length ? el("li", { role: "option", "aria-disabled": "true", "aria-selected": "false", class: "quiet find-none" }, "Nothing here has these words.") : null);
    told.textContent = open ? `${hits.length} found` : "";
    if (open && shown.length) input.setAttribute("aria-activedescendant", `${list.id}-${at}`);
    else input.removeAttribute("aria-activedescendant");
    document.getElementById(`${list.id}-${at}`)?.scrollIntoView({ block: "nearest" });
  }

  function move(event) {
    const last = Math.min(hits.length, HITS_MAX) - 1;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && last >= 0) at = (at + step + last + 1) % (last + 1);
    else if (event.key === "Enter" && last >= 0 && !list.hidden) return event.preventDefault() ?? go(at);
    else if (event.key === "Escape" && !list.hidden) return event.preventDefault() ?? close();
    else return undefined;
    event.preventDefault();
    return draw(true);
  }

  function go(index) {
    const hit = hits[index];
    close();
    input.value = "";
    hit.reveal();
    const place = document.activeElement?.closest("[data-option], [data-key]");
    if (!place) return;
    place.scrollIntoView({ block: "center" });
    place.classList.add("found");
    setTimeout(() => place.classList.remove("found"), 2000);
  }

  function close() {
    draw(false);
  }

  // As in many places, a stroke leads to the box, unless one types.
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    event.preventDefault();
    input.focus();
  });
  return el("div", { class: "find" }, input, list, told);
}
