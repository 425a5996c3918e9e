// Tokens: who may use what, until when, and what was used.

import { confirm, copyButton, data, el, show, toast } from "../lib/dom.js";
import { generateToken } from "../lib/actions.js";
import { get, live, part, remove } from "../lib/api.js";
import { ago, count, time } from "../lib/format.js";
import { person } from "../lib/people.js";
import { table } from "../lib/table.js";

/** Pages of tokens that are read at once. */
const PAGES_MAX = 20;

export default async function tokens(main) {
  document.title = "Tokens – Tidegate";
  const known = new Map();
  const list = table({
    label: "tokens", name: "tokens", key: (row) => row.jti, sortBy: "-Created",
    search: (row) => [row.label, row.jti, row.subject, row.workspace, row.kind, row.role, row.state, ...row.projects, ...row.endpoints, row.created_by, row.issuer, JSON.stringify(row.metadata)].join(" "),
    empty: "No token was made yet.",
    filters: [
      { label: "Any state", choices: ["valid", "expired", "revoked"], fits: (row, word) => row.state === word },
      { label: "Any issuer", choices: ["this gateway", "others"], fits: (row, word) => (row.issuer === null) === (word === "this gateway") },
      { label: "Any type", choices: ["user", "endpoint"], fits: (row, word) => row.kind === word },
    ],
    columns: [
      { title: "Label", long: true, value: (row) => row.label ?? row.subject, render: (row) => el("div", { class: "stack" }, row.label || !/^token:/.test(row.subject) ? data(row.label ?? row.subject, 48) : el("span", { class: "quiet" }, "no label"), el("span", { class: "quiet small copyable" }, el("code", {}, row.jti), copyButton(row.jti, "the id"))) },
      { title: "Type", value: (row) => [row.kind, row.role], render: (row) => [row.kind === "endpoint" ? "Endpoint" : "User", row.role !== "user" ? [" ", el("span", { class: "badge" }, row.role)] : null] },
      { title: "State", value: (row) => row.state, render: (row) => el("span", { class: `badge ${{ valid: "good", revoked: "bad" }[row.state] ?? "grey"}` }, row.state) },
      { title: "Created", value: (row) => row.created, render: (row) => el("time", { title: time(row.created) }, ago(row.created)) },
      { title: "Expires", value: (row) => row.expires, render: (row) => el("time", { title: time(row.expires) }, ago(row.expires)) },
      { title: "Scope", long: true, value: (row) => [row.workspace, row.projects, row.endpoints], render: (row) => el("div", { class: "stack" }, el("span", {}, "workspace ", data(row.workspace, 40)),
        row.projects.length ? el("span", {}, row.projects.length === 1 ? "project " : "projects ", data(row.projects.join(", "), 48)) : null,
        row.endpoints.length ? el("span", {}, "only ", data(row.endpoints.join(", "), 48)) : null) },
      { title: "Metadata", value: (row) => row.metadata ?? null, render: (row) => (row.metadata ? el("code", {}, data(JSON.stringify(row.metadata), 48)) : "") },
      { title: "Created by", value: (row) => row.issuer ?? row.created_by ?? "", render: (row) => person(row.issuer ?? row.created_by ?? "", known) },
      { title: "Last used", value: (row) => row.last_used, render: (row) => (row.last_used ? ago(row.last_used) : "never") },
      { title: "Requests", number: true, value: (row) => row.requests, render: (row) => count(row.requests) },
      { title: "Tokens used", number: true, value: (row) => row.prompt_tokens + row.completion_tokens, render: (row) => el("span", { title: `${count(row.prompt_tokens)} of prompts, ${count(row.completion_tokens)} of completions` }, count(row.prompt_tokens + row.completion_tokens)) },
      { title: "", sort: false, value: (row) => row.state, render: (row) => row.state === "valid" && el("button", { type: "button", class: "tiny danger", "aria-label": `Revoke ${row.label ?? row.jti}`, on: { click: () => revoke(row) } }, "Revoke") },
    ],
  });
  const sums = table({
    label: "labels", name: "usage", key: (row) => JSON.stringify([row.workspace, row.issuer, row.label, row.subject]), sortBy: "-Tokens used",
    search: (row) => [row.label, row.subject, row.workspace, row.issuer].join(" "),
    empty: "No token was used yet.",
    columns: [
      { title: "Label", value: (row) => row.label ?? row.subject ?? "", render: (row) => (row.label ?? row.subject ? data(row.label ?? row.subject, 48) : el("span", { class: "quiet" }, "records are gone")) },
      { title: "Workspace", value: (row) => row.workspace ?? "", render: (row) => data(row.workspace ?? "", 40) },
      { title: "Issuer", value: (row) => row.issuer ?? "", render: (row) => (row.issuer ? data(row.issuer, 48) : "this gateway") },
      { title: "Used", number: true, value: (row) => row.tokens, render: (row) => el("span", { title: "tokens of this label that were used; of another issuer, holders" }, count(row.tokens)) },
      { title: "Last used", value: (row) => row.last_used, render: (row) => el("time", { title: time(row.last_used) }, ago(row.last_used)) },
      { title: "Requests", number: true, value: (row) => row.requests, render: (row) => count(row.requests) },
      { title: "Prompt tokens", number: true, value: (row) => row.prompt_tokens, render: (row) => count(row.prompt_tokens) },
      { title: "Completion tokens", number: true, value: (row) => row.completion_tokens, render: (row) => count(row.completion_tokens) },
      { title: "Tokens used", number: true, value: (row) => row.prompt_tokens + row.completion_tokens, render: (row) => count(row.prompt_tokens + row.completion_tokens) },
    ],
  });
  show(main,
    el("div", { class: "head" }, el("h1", {}, "Tokens"), list.toolbar, el("button", { type: "button", class: "primary", on: { click: () => generateToken({}, () => refresh()) } }, "Generate Token")),
    el("section", { class: "card", "aria-label": "Tokens" }, list.node),
    el("section", { class: "card", "aria-label": "Usage by label" }, el("div", { class: "head" }, el("h2", {}, "Usage by label"), sums.toolbar), sums.node));
  const refresh = live(async () => {
    const all = [];
    let before = null;
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const answer = await get("tokens", { before });
      all.push(...answer.tokens);
      before = answer.next;
      if (!before) break;
    }
    for (const row of all) if (row.label) known.set(`token:${row.jti}`, row.label);
    list.set(all);
    const answer = await get("tokens/usage", {});
    sums.set(answer.usage);
  }, 10);

  async function revoke(row) {
    const sure = await confirm(`Revoke ${row.label ?? row.jti}?`, { details: el("p", {}, row.issuer === null ? "It is refused from its next request on. This can't be undone."
      : `Every token that ${row.issuer} issues to ${row.subject} is refused from the next request on. This can't be undone.`), action: "Revoke", danger: true });
    if (!sure) return;
    try {
      await remove(`tokens/${part(row.jti)}`);
      toast("The token is revoked");
    } catch (error) {
      toast(error.message, "bad");
    }
    refresh();
  }
}
