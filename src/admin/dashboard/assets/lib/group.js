// A foldable group of options. Its fields are made when it is first opened.

import { el, id, show } from "./dom.js";
import { goneOption, optionField } from "./option.js";

/**
 * `place`: `{ get(name), set(name, value) }`, the table that values stand in. `three`: a place
 * that overrides another. `readonly` shows only what is set.
 */
export function group({ title, options, place, key, three = false, readonly = false, open = false, note = null }) {
  const fields = new Map();
  const count = el("span", { class: "badge" });
  const wrongCount = el("span", { class: "badge bad", hidden: true });
  const body = el("div", { class: "stack" });
  const node = el("details", { class: "group", open }, el("summary", {}, title, " ", count, " ", wrongCount), body);
  let made = false;
  let errors = new Map();

  const has = (option) => place.get(option.name) !== undefined && place.get(option.name) !== null;
  const own = () => (readonly ? options.filter(has) : options);

  function access(option) {
    return { read: () => place.get(option.name), write: (value) => { place.set(option.name, value); tally(); } };
  }

  function make() {
    if (made) return;
    made = true;
    const present = own().filter((option) => option.available);
    const gone = own().filter((option) => !option.available);
    const grid = el("div", { class: "fields" });
    for (const option of present) {
      const field = optionField(option, { ...access(option), three, readonly, key: key(option) });
      fields.set(option.name, field);
      field.error(errors.get(option.name));
      grid.append(field.node);
    }
    const list = el("ul", {}, gone.map((option) => goneOption(option, access(option))));
    show(body, note, present.length ? grid : null,
      gone.length ? el("details", { class: "gone", open: gone.some(has) }, el("summary", {}, `Not in this vLLM version (${gone.length})`), list) : null,
      !present.length && !gone.length ? el("p", { class: "quiet" }, "Nothing is set.") : null);
  }

  function tally() {
    const set = options.filter(has).length;
    show(count, set ? `${set} set` : "");
    count.hidden = !set;
  }

  node.addEventListener("toggle", () => node.open && make());
  tally();
  if (open) make();
  return {
    node,
    id: id("group"),
    tally,
    options,
    title,
    holds: (name) => options.some((option) => option.name === name),
    /** Shows errors by option; others are cleared. */
    errors(found) {
      errors = found;
      for (const [name, field] of fields) field.error(found.get(name));
      const wrong = options.filter((option) => found.has(option.name)).length;
      show(wrongCount, wrong ? `${wrong} wrong` : "");
      wrongCount.hidden = !wrong;
    },
    /** Opens it and goes to an option. */
    reveal(name) {
      for (let fold = node; fold; fold = fold.parentElement.closest("details")) fold.open = true;
      make();
      const target = fields.get(name)?.input ?? node.querySelector(`[data-option="${CSS.escape(name)}"] button`);
      node.scrollIntoView({ block: "nearest" });
      target?.focus();
    },
  };
}
