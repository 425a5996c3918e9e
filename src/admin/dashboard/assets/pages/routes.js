// Routes: the entrances, how each stands, a test of each, its file; and what is wrong with files.

import { confirm, copyButton, data, dialog, el, field, show, toast } from "../lib/dom.js";
import { call, get, live, news, part, post, remove } from "../lib/api.js";
import { ago, decimal, NONE, time } from "../lib/format.js";
import { labels, person } from "../lib/people.js";
import { menu } from "../lib/menu.js";
import { reviewed } from "../lib/review.js";
import { table } from "../lib/table.js";

const STATUS = { not_in_use: ["Not In Use", "grey"], pending: ["Pending", ""], failed: ["Failed", "bad"], down: ["Down", "bad"], degraded: ["Degraded", "warn"], routing: ["Routing", "good"] };

/** What is said of a server that is not asked as usual. */
function standing(server) {
  if (!server || (server.state === "in" && !server.why)) return null;
  const words = [server.state === "in" ? "the last that is left" : server.state, server.why, server.back_in_seconds && `asked again in ${server.back_in_seconds} s`].filter(Boolean).join(", ");
  return el("span", { class: `small badge ${server.state === "ejected" || server.state === "down" ? "bad" : "warn"}` }, data(words, 200));
}

const EXAMPLE = `[route]
name = "chat"
path = "/chat"                     # https://HOST/chat/v1/…
models = ["chat", "gpt-4o-mini"]   # names that reach it on https://HOST/v1/…
project = "research"               # or public = true
requests_per_minute = 600          # per token

[[upstream]]                       # servers that someone else runs; several are balanced
url = "http://127.0.0.1:8000"
model = "Qwen/Qwen3-8B"            # the name that this server knows
`;

export default async function routes(main) {
  document.title = "Routes – Tidegate";
  const known = await labels();
  const servers = new Map();
  const list = table({
    label: "routes", name: "routes", key: (row) => row.name, sortBy: "Name",
    search: (row) => [row.name, row.path, ...row.models, ...(row.names ?? []).map((name) => name.name), row.access, ...row.targets, ...row.instances, row.file, row.updated_by].join(" "),
    empty: "There is no route yet.",
    filters: [{ label: "Any status", choices: Object.values(STATUS).map(([word]) => word), fits: (row, word) => STATUS[row.status]?.[0] === word },
      { label: "Any type", choices: ["instances", "upstreams", "mixed", "empty"], fits: (row, word) => row.type === word }],
    columns: [
      { title: "Enabled", value: (row) => row.enabled, render: (row) => el("span", { class: `badge ${row.enabled ? "good" : "grey"}` }, row.enabled ? "yes" : "no") },
      { title: "Name", value: (row) => [row.name, row.ephemeral], by: (row) => row.name, render: (row) => [data(row.name, 60), row.ephemeral ? [" ", el("span", { class: "badge grey" }, "ephemeral")] : null] },
      { title: "Route", value: (row) => [row.path, row.urls, row.models], by: (row) => row.path, render: (row) => el("div", { class: "stack" },
        el("span", { class: "copyable" }, el("code", {}, data(row.path, 60)), row.urls.length ? copyButton(row.urls[0], `the address of ${row.name}`) : null),
        row.models.length ? el("span", { class: "quiet small" }, "models: ", data(row.models.join(", "), 120)) : null,
        row.names?.length ? el("span", { class: "quiet small" }, "names: ", data(row.names.map((name) => `${name.name} (${name.of})`).join(", "), 200)) : null) },
      { title: "Type", value: (row) => row.type },
      { title: "Load balancing", value: (row) => row.load_balancing || NONE },
      { title: "Status", value: (row) => row.status, render: (row) => el("span", { class: `badge ${STATUS[row.status]?.[1] ?? "grey"}` }, STATUS[row.status]?.[0] ?? row.status) },
      { title: "Targets", value: (row) => [row.targets, (servers.get(row.name) ?? []).map((server) => [server.state, server.why])], by: (row) => row.targets.length,
        render: (row) => el("div", { class: "stack" }, row.targets.slice(0, 6).map((target) => [data(target, 80), standing((servers.get(row.name) ?? []).find((server) => server.address === target))]), row.targets.length > 6 && el("span", { class: "quiet" }, `and ${row.targets.length - 6} more`)) },
      { title: "Instances", value: (row) => row.instances, by: (row) => row.instances.length, render: (row) => el("div", { class: "stack" }, row.instances.slice(0, 6).map((name) => el("a", { href: `/instances/${part(name)}` }, data(name, 60)))) },
      { title: "Access", value: (row) => row.access, render: (row) => data(row.access, 60) },
      { title: "Created", value: (row) => row.created, render: (row) => (row.created ? el("time", { title: time(row.created) }, ago(row.created)) : NONE) },
      { title: "Updated", value: (row) => row.updated, render: (row) => (row.updated ? el("time", { title: time(row.updated) }, ago(row.updated)) : NONE) },
      { title: "Updated by", value: (row) => row.updated_by ?? "", render: (row) => (row.updated_by ? person(row.updated_by, known) : NONE) },
      { title: "", sort: false, wide: true, value: (row) => [row.revision, row.ephemeral], render: (row) => el("div", { class: "actions" },
        el("button", { type: "button", class: "tiny", "aria-label": `Test ${row.name}`, on: { click: () => test(row) } }, "Test"),
        row.ephemeral ? null : menu(`More for ${row.name}`, [
          el("button", { type: "button", class: "tiny", "aria-label": `Edit ${row.name}`, on: { click: () => edit(row) } }, "Edit"),
          el("button", { type: "button", class: "tiny danger", "aria-label": `Delete ${row.name}`, on: { click: () => drop(row) } }, "Delete")])) },
    ],
  });
  const errors = el("section", { class: "card stack", id: "errors", hidden: true });
  show(main, el("div", { class: "head" }, el("h1", {}, "Routes"), list.toolbar, el("button", { type: "button", class: "primary", on: { click: () => edit(null) } }, "New Route")),
    errors, el("section", { class: "card", "aria-label": "Routes" }, list.node));
  let shown = "";
  const refresh = live(async () => {
    const [rows, status, upstreams] = await Promise.all([news("routes"), news("status"), news("upstreams").catch(() => [])]);
    servers.clear();
    for (const server of upstreams) servers.set(server.route, [...(servers.get(server.route) ?? []), server]);
    list.set(rows);
    const text = JSON.stringify(status.config_errors);
    if (text === shown) return;
    shown = text;
    errors.hidden = status.config_errors.length === 0;
    show(errors, el("h2", {}, "Errors in route files"), el("p", { class: "quiet" }, "What was read before stays in effect until they are mended."),
      el("ul", { class: "stack" }, status.config_errors.slice(0, 200).map((error) => el("li", {}, el("div", { class: "stack" },
        el("strong", { class: "data" }, `${error.file}${error.line ? `, line ${error.line}` : ""}`),
        error.text ? el("pre", { class: "code" }, el("code", {}, data(error.text, 400))) : null,
        el("span", {}, error.key ? [el("code", {}, data(error.key, 100)), ": "] : null, data(error.message, 1000)))))));
  }, 5);

  async function drop(row) {
    const sure = await confirm(`Delete the route ${row.name}?`, { details: el("p", {}, `Clients of ${row.path} get 404 from then on. ${row.file} is removed.`), action: "Delete", danger: true });
    if (!sure) return;
    try {
      await remove(`routes/${part(row.name)}`, row.revision ? { "if-match": `"${row.revision}"` } : {});
      toast(`${row.name} is deleted`);
    } catch (error) {
      toast(error.message, "bad");
    }
    refresh();
  }

  /** A route's file as text; the gateway checks it before it takes it in. */
  async function edit(row) {
    let text = EXAMPLE;
    let revision = null;
    if (row) {
      try {
        const answer = await get(`routes/${part(row.name)}/file`);
        text = typeof answer === "string" ? answer : answer.text;
        revision = answer.revision ?? row.revision;
      } catch (error) {
        return toast(error.message, "bad");
      }
    }
    const name = el("input", { type: "text", required: true, value: row?.name ?? "chat", readonly: Boolean(row), spellcheck: "false" });
    const area = el("textarea", { rows: 18, spellcheck: "false", value: text });
    const wrong = el("pre", { class: "note bad", role: "alert", hidden: true });
    const save = el("button", { class: "primary" }, "Review");
    const box = dialog(row ? `Edit the route ${row.name}` : "New route", el("form", { on: { submit } },
      field("Name", name), field("Route file (TOML)", area, "It takes effect as soon as it is saved; a mistake never does."), wrong, el("div", { class: "actions" }, save)));

    async function submit(event) {
      event.preventDefault();
      wrong.hidden = true;
      save.disabled = true;
      try {
        const called = name.value.trim();
        const made = await reviewed(row ? `Review the change of ${row.name}` : `Review ${called}`, (query, headers) => call("PUT", `routes/${part(called)}`, { query, body: area.value, type: "application/toml", headers }), { revision, theirs, apply: row ? "Apply" : "Create" });
        if (made) {
          toast(`${called} is in effect`);
          box.close();
          refresh();
        }
      } catch (error) {
        wrong.textContent = error.message;
        wrong.hidden = false;
      }
      save.disabled = false;
    }
    return box;

    async function theirs() {
      const now = await get(`routes/${part(row.name)}/file`);
      return { revision: now.revision, began: text, now: now.text };
    }
  }
}

/** Sends a real request, and shows each step. */
function test(row) {
  // A pattern is no name that a client could write.
  const names = row.models.filter((name) => !/[*?]/.test(name));
  const model = names.length ? el("select", {}, names.map((name) => el("option", {}, name))) : el("input", { type: "text", spellcheck: "false", placeholder: `a name that fits ${row.models[0] ?? ""}` });
  const prompt = el("input", { type: "text", value: "Hello!", maxlength: 2000 });
  const start = el("input", { type: "checkbox", id: "test-start" });
  const result = el("div", { class: "stack", "aria-live": "polite" });
  const go = el("button", { class: "primary" }, "Send");
  dialog(`Test the route ${row.name}`, el("form", { on: { submit } },
    el("p", { class: "quiet" }, `Sends a real request to ${row.path} and shows what becomes of it.`),
    row.models.length ? field("Model", model) : null, field("Prompt", prompt),
    el("label", { class: "check", for: "test-start" }, start, "Start or wake the worker if need be"), el("div", { class: "actions" }, go)), result);

  async function submit(event) {
    event.preventDefault();
    go.disabled = true;
    show(result, el("p", { class: "quiet" }, "Sent…"));
    try {
      const answer = await post(`routes/${part(row.name)}/test`, { model: model.value || null, prompt: prompt.value || null, start: start.checked });
      show(result, el("p", { class: `note ${answer.ok ? "good" : "bad"}` }, answer.ok ? `It answers, in ${decimal(answer.total_ms)} ms.` : "It does not answer."),
        el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["Step", "", "ms", "What was seen"].map((title) => el("th", { scope: "col" }, title || el("span", { class: "sr" }, "Outcome"))))),
          el("tbody", {}, answer.steps.map((step) => el("tr", {}, el("td", {}, step.step.replaceAll("_", " ")), el("td", {}, el("span", { class: `badge ${step.ok ? "good" : "bad"}` }, step.ok ? "ok" : "failed")), el("td", { class: "number" }, decimal(step.ms)), el("td", {}, data(step.detail, 600))))))),
        answer.answer ? [el("h3", {}, "Answer"), el("pre", { class: "code" }, el("code", {}, answer.answer))] : null);
    } catch (error) {
      show(result, el("p", { class: "note bad" }, error.message));
    }
    go.disabled = false;
  }
}
