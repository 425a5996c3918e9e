// What was decided, and who did what.

import { data, el, show } from "../lib/dom.js";
import { get, live, part } from "../lib/api.js";
import { labels, person } from "../lib/people.js";
import { ago, time } from "../lib/format.js";
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
    search: (row) => [row.who, known.get(row.who), row.via, row.action, row.target, row.outcome, row.detail, row.peer].join(" "), empty: "No one changed anything yet.",
    filters: [{ label: "Any outcome", choices: ["done", "refused", "failed"], fits: (row, word) => row.outcome === word }],
    columns: [
      { title: "When", value: (row) => row.at, by: (row) => row.id, short: true, render: (row) => when(row.at) },
      { title: "Who", value: (row) => [row.who, row.via, row.peer], render: (row) => el("div", { class: "stack" }, row.who === "-" ? "no one" : person(row.who, known), el("span", { class: "quiet small" }, `${row.via === "none" ? "not logged in" : `by ${row.via}`}${row.peer ? ` from ${row.peer}` : ""}`)) },
      { title: "What", value: (row) => row.action },
      { title: "To", long: true, value: (row) => row.target, render: (row) => data(row.target, 120) },
      { title: "Outcome", value: (row) => row.outcome, render: (row) => el("span", { class: `badge ${row.outcome === "done" ? "good" : "bad"}` }, row.outcome) },
      { title: "Detail", long: true, value: (row) => row.detail, render: (row) => data(row.detail, 400) },
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

  live(async () => {
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
