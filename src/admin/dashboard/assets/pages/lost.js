// An address that leads nowhere.

import { el, show } from "../lib/dom.js";

export default function lost(main) {
  document.title = "Not there – Tidegate";
  show(main, el("div", { class: "card stack" }, el("h1", {}, "There is no such page"),
    el("p", {}, el("a", { href: "/" }, "All instances"))));
}
