// Who is logged in where.

import { confirm, copyButton, data, el, show, toast } from "../lib/dom.js";
import { get, live, part, post, remove, session } from "../lib/api.js";
import { ago, time } from "../lib/format.js";
import { labels, person } from "../lib/people.js";
import { table } from "../lib/table.js";

/** A browser by its name and system, as people know it; else what it says of itself. */
function browser(agent) {
  const name = [["Edg", "Edge"], ["OPR", "Opera"], ["Firefox", "Firefox"], ["HeadlessChrome", "Chrome, headless"], ["Chrome", "Chrome"], ["Version", "Safari"]]
    .map(([word, title]) => [agent.match(new RegExp(`${word}/(\\d+)`))?.[1], title]).find(([version]) => version);
  const system = agent.match(/Windows|Mac OS X|Android|iPhone|iPad|Linux/)?.[0];
  return name ? `${name[1]} ${name[0]}${system ? ` on ${system.replace("Mac OS X", "macOS")}` : ""}` : agent;
}

export default async function sessions(main) {
  document.title = "Sessions – Tidegate";
  const [who, known] = await Promise.all([session(), labels()]);
  const list = table({
    label: "sessions", name: "sessions", key: (row) => row.id, sortBy: "-Last used",
    search: (row) => `${row.label ?? ""} ${row.subject} ${row.role} ${row.agent} ${row.address}`,
    empty: "No one is logged in by a session.",
    columns: [
      { title: "Who", value: (row) => [row.subject, row.label, row.link_by, row.current], by: (row) => row.label ?? row.subject, render: (row) => [row.label ? el("span", { title: row.subject }, data(row.label, 60)) : person(row.subject, known, row.link_by), row.current ? [" ", el("span", { class: "badge" }, "this one")] : null] },
      { title: "Role", value: (row) => row.role },
      { title: "Browser", long: true, value: (row) => row.agent, render: (row) => el("span", { title: row.agent }, data(browser(row.agent), 90)) },
      { title: "From", value: (row) => row.address, render: (row) => data(row.address, 60) },
      { title: "Began", value: (row) => row.created, render: (row) => el("time", { title: time(row.created) }, ago(row.created)) },
      { title: "Last used", value: (row) => row.last_used, render: (row) => ago(row.last_used) },
      { title: "Ends", value: (row) => row.expires, render: (row) => time(row.expires) },
      { title: "", sort: false, value: (row) => row.id, render: (row) => el("button", { type: "button", class: "tiny danger", "aria-label": `End the session of ${row.subject}`, on: { click: () => end(row) } }, "End") },
    ],
  });
  const link = el("div", { class: "stack" });
  show(main, el("div", { class: "head" }, el("h1", {}, "Sessions"), list.toolbar),
    el("section", { class: "card stack", "aria-label": "You" }, el("p", {}, "You are ", el("strong", {}, person(who.subject, known, who.link_by)), `, ${who.role}`, who.projects.length ? `, for ${who.projects.join(", ")}` : "", "."),
      who.role === "admin" ? el("div", { class: "actions" }, el("button", { type: "button", on: { click: makeLink } }, "Make a login link")) : null, link),
    el("section", { class: "card", "aria-label": "Sessions" }, list.node));
  const refresh = live(async () => list.set(await get("sessions")), 10);

  async function makeLink() {
    try {
      const made = await post("login-links");
      show(link, el("p", {}, `Opens a session once, until ${time(made.expires)}: `), el("span", { class: "copyable" }, el("code", {}, made.url), copyButton(made.url, "the login link")));
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async function end(row) {
    if (!(await confirm(`End the session of ${row.subject}?`, { action: "End", danger: true }))) return;
    try {
      await remove(`sessions/${part(row.id)}`);
      if (row.current) location.assign("/login");
    } catch (error) {
      toast(error.message, "bad");
    }
    refresh();
  }
}
