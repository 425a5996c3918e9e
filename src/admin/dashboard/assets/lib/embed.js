// Links that show one plot elsewhere: made, copied, revoked.

import { code, data, dialog, el, field, show, toast } from "./dom.js";
import { get, part, post, remove } from "./api.js";
import { ago, time } from "./format.js";

/** A dialog that makes a link for a plot, and lists those that there are. */
export function embedDialog({ scope, metrics, title, range }) {
  const heading = el("input", { type: "text", value: `${title}, ${scope.replace(/^[a-z]+:/, "")}`, maxlength: 120 });
  const span = el("select", {}, [["15m", 900], ["1h", 3600], ["6h", 21600], ["24h", 86400], ["2d", 172800], ["7d", 604800], ["30d", 2592000], ["90d", 7776000]]
    .map(([name, seconds]) => el("option", { value: name, selected: seconds === range }, name)));
  const ttl = el("select", {}, [["1d", "1 day"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["365d", "1 year"]]
    .map(([value, name]) => el("option", { value, selected: value === "30d" }, name)));
  const wrong = el("p", { class: "note bad", role: "alert", hidden: true });
  const make = el("button", { class: "primary" }, "Make a link");
  const result = el("div", { class: "stack" });
  const existing = el("div", { class: "stack" });
  const form = el("form", { on: { submit: create } },
    el("p", { class: "quiet" }, "Whoever has the link sees this plot, and nothing else, until it ends or is revoked."),
    field("Title", heading), el("div", { class: "columns" }, field("Range", span), field("Works for", ttl)), wrong, el("div", { class: "actions" }, make));
  dialog(`Embed: ${title}`, form, result, existing);
  list();

  async function create(event) {
    event.preventDefault();
    wrong.hidden = true;
    make.disabled = true;
    try {
      const made = await post("embeds", { scope, metrics, span: span.value, ttl: ttl.value, title: heading.value.trim() || null });
      const block = (label, text) => {
        const box = code(label);
        box.set(text);
        box.node.dataset.embed = label;
        return el("div", {}, el("h3", {}, label), box.node);
      };
      show(result, el("p", { class: "note good" }, `It works until ${time(made.expires)}.`),
        block("Live page, for places that take HTML", made.html),
        block("Address of the live page", made.page_url),
        block("Address of the picture", made.svg_url),
        block("Markdown, for places that take only pictures", made.markdown));
      list();
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
    }
    make.disabled = false;
  }

  async function list() {
    try {
      const links = (await get("embeds")).filter((link) => link.scope === scope);
      if (!links.length) return show(existing);
      return show(existing, el("details", {}, el("summary", {}, `Links to plots of ${scope} (${links.length})`),
        el("ul", {}, links.slice(0, 100).map((link) => {
          const item = el("li", { class: "actions" }, data(link.title, 80), el("span", { class: "quiet small" }, `made ${ago(link.created)} by ${link.created_by}, ends ${time(link.expires)}`),
            el("button", { type: "button", class: "tiny danger", "aria-label": `Revoke ${link.title}`, on: { click: () => revoke(link, item) } }, "Revoke"));
          return item;
        }))));
    } catch (error) {
      return show(existing, el("p", { class: "quiet small" }, error.message));
    }
  }

  async function revoke(link, item) {
    try {
      await remove(`embeds/${part(link.id)}`);
      item.remove();
      toast("The link is revoked");
    } catch (error) {
      toast(error.message, "bad");
    }
  }
}
