// What is done more rarely, behind "⋯".

import { el, id } from "./dom.js";

/** A button that opens these; `label` says of what they are. */
export function menu(label, items) {
  const list = el("div", { class: "menu", popover: "auto", id: id("menu"), role: "group", "aria-label": label, on: { beforetoggle: place, click: () => list.hidePopover() } }, items);
  const open = el("button", { type: "button", class: "tiny", popovertarget: list.id, "aria-label": label, title: "More" }, el("span", { "aria-hidden": "true" }, "⋯"));

  /** Below the button where there is room, else above it. */
  function place() {
    const box = open.getBoundingClientRect();
    const low = box.bottom > innerHeight * 0.6;
    list.style.right = `${Math.max(4, document.documentElement.clientWidth - box.right)}px`;
    list.style.top = low ? "auto" : `${box.bottom + 4}px`;
    list.style.bottom = low ? `${innerHeight - box.top + 4}px` : "auto";
    addEventListener("scroll", () => list.matches(":popover-open") && list.hidePopover(), { once: true, capture: true });
  }
  return [open, list];
}
