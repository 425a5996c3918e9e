// Tables that are filtered, sorted and kept up to date in place.

import { el, show, id } from "./dom.js";

/** Where all columns fit, the head stays below the page's bar; where they do not, the table scrolls in itself and keeps it. */
const room = new ResizeObserver((entries) => {
  for (const box of new Set(entries.map(({ target }) => target.closest(".scroll")))) box?.classList.toggle("fits", box.firstElementChild.offsetWidth <= box.clientWidth);
});

/**
 * A table of rows of data.
 *
 * `columns`: `{ title, value(row), render(row), number, wide, sort }`; one without
 * a title holds buttons, and stays in sight; `long` may be broken anywhere, `short`
 * nowhere. A cell is
 * drawn again only when its `value` changed, so that a focused button stays.
 * `key(row)` names a row. `search(row)` is the text that the filter looks in.
 */
export function table({ label, columns, key, search = null, empty = "Nothing here yet.", sortBy = null, name = "table", filters = [] }) {
  const parameters = new URLSearchParams(location.search);
  let rows = [];
  let order = parameters.get(`${name}.sort`) ?? sortBy;
  const drawn = new Map();
  const body = el("tbody", { role: "rowgroup" });
  const nothing = el("div", { class: "empty", hidden: true });
  const countText = el("span", { class: "quiet small", role: "status" });
  const heads = columns.map((column, index) => head(column, index));
  const grid = el("table", { class: "cards", role: "table", "aria-label": label }, el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), body);
  const box = el("div", { class: "scroll fits" }, grid);
  const node = el("div", { class: "stack" }, box, nothing);
  room.observe(box);
  room.observe(grid);
  const input = search && el("input", { type: "search", class: "filter", placeholder: "Filter…", "aria-label": `Filter ${label}`,
    value: parameters.get(`${name}.filter`) ?? "", on: { input: () => { remember(); draw(); } } });
  const selects = filters.map((filter) => select(filter));
  const toolbar = el("div", { class: "actions" }, input, selects.map((each) => each.node), countText);

  function head(column) {
    const attributes = { role: "columnheader", scope: "col", class: column.number ? "number" : column.title ? null : "act" };
    if (column.sort === false) return el("th", attributes, column.title || el("span", { class: "sr" }, "Actions"));
    return el("th", attributes, el("button", { type: "button", on: { click: () => turn(column) } }, column.title));
  }

  function select(filter) {
    const parameter = filter.label.replace(/^Any /, "").replaceAll(" ", "-");
    const control = el("select", { "aria-label": filter.label, on: { change: () => { remember(); draw(); } } },
      el("option", { value: "" }, filter.label), filter.choices.map((choice) => el("option", { value: choice }, choice)));
    const wanted = parameters.get(`${name}.${parameter}`);
    if (filter.choices.includes(wanted)) control.value = wanted;
    return { node: control, parameter, fits: (row) => !control.value || filter.fits(row, control.value) };
  }

  function turn(column) {
    order = order === column.title ? `-${column.title}` : column.title;
    remember();
    draw();
  }

  function remember() {
    const address = new URL(location.href);
    const keep = (what, value) => (value ? address.searchParams.set(`${name}.${what}`, value) : address.searchParams.delete(`${name}.${what}`));
    keep("sort", order === sortBy ? "" : order);
    keep("filter", input?.value);
    for (const each of selects) keep(each.parameter, each.node.value);
    history.replaceState(null, "", address);
  }

  function sorted() {
    const down = order?.startsWith("-");
    const column = columns.find((each) => each.title === (down ? order.slice(1) : order));
    heads.forEach((cell, index) => {
      const state = columns[index] === column ? (down ? "descending" : "ascending") : null;
      if (state) cell.setAttribute("aria-sort", state);
      else cell.removeAttribute("aria-sort");
    });
    if (!column) return rows;
    const by = column.by ?? column.value;
    const places = rows.map((row, place) => ({ row, place, value: by(row) }));
    places.sort((a, b) => compare(a.value, b.value) * (down ? -1 : 1) || a.place - b.place);
    return places.map(({ row }) => row);
  }

  function draw() {
    const words = (input?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row) => words.every((word) => search(row).toLowerCase().includes(word)) && selects.every((each) => each.fits(row));
    const shown = sorted().filter(fits);
    const wanted = shown.map((row) => line(row));
    const kept = new Set(shown.map(key));
    for (const [name_, entry] of drawn) {
      if (!kept.has(name_)) {
        entry.node.remove();
        drawn.delete(name_);
      }
    }
    wanted.forEach((row, place) => {
      if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
    });
    const noun = rows.length === 1 ? label.replace(/s$/, "") : label;
    countText.textContent = rows.length ? `${shown.length === rows.length ? "" : `${shown.length} of `}${rows.length} ${noun}` : "";
    nothing.hidden = shown.length > 0;
    const words_ = rows.length ? "Nothing fits the filter." : empty;
    if (nothing.dataset.of !== String(rows.length > 0)) show(nothing, words_);
    nothing.dataset.of = String(rows.length > 0);
  }

  function line(row) {
    const name_ = key(row);
    let entry = drawn.get(name_);
    if (!entry) {
      entry = { node: el("tr", { role: "row" }), cells: [] };
      entry.cells = columns.map((column) => ({
        node: el("td", { role: "cell", "data-label": column.title, class: [column.number && "number", column.wide && "wide", column.long && "long", column.short && "short", !column.title && "act"].filter(Boolean).join(" ") || null }),
        value: undefined,
      }));
      entry.node.append(...entry.cells.map((cell) => cell.node));
      drawn.set(name_, entry);
    }
    columns.forEach((column, index) => {
      const cell = entry.cells[index];
      const value = JSON.stringify(column.value(row) ?? null);
      if (cell.value === value) return;
      cell.value = value;
      const drawn_ = column.render ? column.render(row) : String(column.value(row) ?? "");
      // One child, as a narrow cell is a grid of its title and this.
      show(cell.node, Array.isArray(drawn_) ? el("div", {}, drawn_) : drawn_);
    });
    return entry.node;
  }

  return {
    node,
    toolbar,
    id: id("table"),
    set(next) {
      rows = next;
      draw();
    },
    get shown() {
      return [...drawn.keys()];
    },
  };
}

function compare(a, b) {
  const none = (value) => value === null || value === undefined || value === "";
  if (none(a) || none(b)) return Number(none(a)) - Number(none(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true, sensitivity: "base" });
}

/** Rows as comma-separated values, safe to open in a spreadsheet. */
export function csv(columns, rows) {
  const cell = (value) => {
    const text = String(value ?? "");
    // A spreadsheet takes these for a formula.
    const plain = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const lines = [columns.map(([title]) => cell(title)), ...rows.map((row) => columns.map(([, value]) => cell(value(row))))];
  return `${lines.map((line) => line.join(",")).join("\r\n")}\r\n`;
}
