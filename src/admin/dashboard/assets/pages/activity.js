// What was decided, and who did what.

import { data, dialog, el, show, toast } from "../lib/dom.js";
import { call, get, live, part } from "../lib/api.js";
import { labels, person } from "../lib/people.js";
import { ago, time } from "../lib/format.js";
import { diff, reviewed } from "../lib/review.js";
import { table } from "../lib/table.js";
import { tabs } from "../lib/tabs.js";

const when = (at) => el("time", { datetime: new Date(at * 1000).toISOString(), title: time(at) }, ago(at));

export default async function activity(main) {
  document.title = "Activity – Tidegate";
  const known = await labels();
  const events = table({
    label: "decisions", name: "events", key: (row) => row.key, sortBy: "-When", search: (row) => `${row.deployment} ${row.text}`, empty: "Nothing was decided yet.",
    columns: [
      { title: "When", value: (row) => row.at, by: (row) => row.place, short: true, render: (row) => when(row.at) },
      { title: "Model", value: (row) => row.deployment, render: (row) => el("a", { href: `/instances/${part(row.deployment.split("/")[0])}` }, data(row.deployment, 80)) },
      { title: "What and why", value: (row) => row.text, render: (row) => data(row.text, 1000) },
    ],
  });
  const audit = table({
    label: "changes", name: "audit", key: (row) => String(row.id), sortBy: "-When",
    search: (row) => [row.who, known.get(row.who), row.link_by, known.get(row.link_by), row.via, row.action, row.target, row.outcome, row.detail, row.peer].join(" "), empty: "No one changed anything yet.",
    filters: [{ label: "Any outcome", choices: ["done", "refused", "failed"], fits: (row, word) => row.outcome === word }],
    columns: [
      { title: "When", value: (row) => row.at, by: (row) => row.id, short: true, render: (row) => when(row.at) },
      { title: "Who", value: (row) => [row.who, row.via, row.peer], render: (row) => el("div", { class: "stack" }, row.who === "-" ? "no one" : person(row.who, known, row.link_by), el("span", { class: "quiet small" }, `${row.via === "none" ? "not logged in" : `by ${row.via}`}${row.peer ? ` from ${row.peer}` : ""}`)) },
      { title: "What", value: (row) => row.action },
      { title: "To", long: true, value: (row) => row.target, render: (row) => data(row.target, 120) },
      { title: "Outcome", value: (row) => row.outcome, render: (row) => el("span", { class: `badge ${row.outcome === "done" ? "good" : "bad"}` }, row.outcome) },
      { title: "Detail", long: true, value: (row) => row.detail, render: (row) => data(row.detail, 400) },
      { title: "", sort: false, value: (row) => row.has_text, render: (row) => row.has_text && el("button", { type: "button", class: "tiny", "aria-label": `Text of the ${row.action} of ${row.target}`, on: { click: () => texts(row) } }, "Text") },
    ],
  });
  const older = el("button", { type: "button", on: { click: more } }, "Show older ones");
  const panels = tabs("Kinds of activity", [
    { name: "decisions", title: "Decisions", node: el("section", { class: "card stack" }, events.toolbar, events.node) },
    { name: "changes", title: "Changes by people", node: el("section", { class: "card stack" }, audit.toolbar, audit.node, el("div", { class: "actions" }, older)) },
  ]);
  show(main, el("h1", {}, "Activity"), panels.node);
  panels.start();
  const pages = new Map();
  let next = null;

  function take(page) {
    for (const row of page.events) pages.set(row.id, row);
    audit.set([...pages.values()].sort((a, b) => b.id - a.id));
  }

  async function more() {
    const page = await get("audit", { before: next });
    next = page.next;
    older.hidden = next === null;
    take(page);
  }

  /** The file before and after a change, and the way back. */
  async function texts(row) {
    const [, kind, name] = row.target.match(/^(instance|route):(.*)$/s);
    let text;
    try {
      text = await get(`audit/${row.id}/text`);
    } catch (error) {
      return toast(error.message, "bad");
    }
    const back = text.before === null
      ? el("a", { class: "button", href: kind === "instance" ? `/instances/${part(name)}` : `/routes?routes.filter=${part(name)}` }, "To undo it, delete it there")
      : el("button", { type: "button", class: "primary", on: { click: () => { box.close(); undo(kind, name, text.before); } } }, "Undo");
    const box = dialog(`${row.action[0].toUpperCase()}${row.action.slice(1)} of ${name}`, el("p", { class: "quiet" }, time(row.at), ", by ", person(row.who, known, row.link_by)), diff(text.before, text.after),
      el("p", { class: "quiet small" }, text.before === null ? "It was new." : "Undo puts the text of before in place of the present one, after a review. Secrets stay those of now."), el("div", { class: "actions" }, back));
    return box.classList.add("large");
  }

  /** Puts an earlier text in place again, by way of the review. */
  async function undo(kind, name, body) {
    const at = `${kind}s/${part(name)}`;
    const present = () => get(kind === "route" ? `${at}/file` : at).catch((error) => {
      if (error.status !== 404) throw error;
      return null;
    });
    try {
      const now = await present();
      const [method, path] = now || kind === "route" ? ["PUT", at] : ["POST", "instances"];
      const made = await reviewed(`Review: ${name} as it was`, (query, headers) => call(method, path, { query, body, type: "application/toml", headers }), { revision: now?.revision ?? null });
      if (made) toast(made.unchanged ? `${name} is so already` : `${name} is as it was`);
    } catch (error) {
      toast(error.message, "bad");
    }
    refresh();
  }

  const refresh = live(async () => {
    const [rows, page] = await Promise.all([get("events", { tail: 500 }), get("audit").catch(() => ({ events: [], next: null }))]);
    const seen = new Map();
    events.set(rows.map((row, place) => {
      const base = `${row.at} ${row.deployment} ${row.text}`;
      seen.set(base, (seen.get(base) ?? 0) + 1);
      return { ...row, place, key: `${base} ${seen.get(base)}` };
    }));
    if (!pages.size) {
      next = page.next;
      older.hidden = next === null;
    }
    take(page);
  }, 5);
}
