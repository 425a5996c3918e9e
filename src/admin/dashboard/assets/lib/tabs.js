// Tabs by the ARIA pattern: arrows move, the address remembers which one is open.

import { el } from "./dom.js";

/** `panels`: `[{ name, title, node, open, close }]`. */
export function tabs(label, panels) {
  const buttons = panels.map(({ name, title }, index) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
    on: { click: () => choose(index, true), keydown: (event) => move(event, index) } }, title));
  const bodies = panels.map(({ name, node }) => el("section", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, tabindex: "-1", class: "stack" }, node));
  let current = -1;

  function choose(index, remember = false) {
    if (index === current) return;
    panels[current]?.close?.();
    current = index;
    buttons.forEach((button, place) => {
      button.setAttribute("aria-selected", String(place === index));
      button.tabIndex = place === index ? 0 : -1;
      bodies[place].hidden = place !== index;
    });
    panels[index].open?.();
    if (remember) {
      const address = new URL(location.href);
      address.searchParams.set("tab", panels[index].name);
      history.pushState(null, "", address);
    }
  }

  function move(event, index) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const target = event.key === "Home" ? 0 : event.key === "End" ? panels.length - 1 : step && (index + step + panels.length) % panels.length;
    if (target === undefined) return;
    event.preventDefault();
    choose(target, true);
    buttons[target].focus();
  }

  const here = () => Math.max(0, panels.findIndex(({ name }) => name === new URLSearchParams(location.search).get("tab")));
  const first = here();
  // Back leads to the tab of before, not away from the page.
  addEventListener("popstate", () => choose(here()));
  return { node: el("div", { class: "stack" }, el("div", { class: "tabs", role: "tablist", "aria-label": label }, buttons), bodies), start: () => choose(first) };
}
