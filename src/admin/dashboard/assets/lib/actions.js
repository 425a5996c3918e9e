// What can be done to an instance, with a question before what can't be undone.

import { el, confirm, copy, dialog, download, field, toast } from "./dom.js";
import { get, part, post, remove } from "./api.js";
import { explained, leavers } from "./explain.js";
import { menu } from "./menu.js";

const RUNS = ["loading", "active", "idle"];

/** Which commands make sense for a status. */
function allows(command, instance) {
  const statuses = instance.deployments.map((deployment) => deployment.status);
  const some = (...words) => statuses.some((status) => words.includes(status));
  if (command === "start") return some("stopped", "failed");
  if (command === "wake") return some("offloaded");
  if (command === "offload") return instance.may_offload && some("active", "idle");
  return some(...RUNS, "offloaded");
}

const TITLES = { start: "Start", stop: "Stop", unload: "Unload", offload: "Offload", wake: "Wake" };
const DONE = { start: "is starting", stop: "is stopping", unload: "is ending its workers; the next request starts one", offload: "is moving its weights off the GPU", wake: "is waking" };

/** Asks before a start or a wake that others make room for; one that nobody leaves for needs no question. */
async function mayPush(instance, name, deployment) {
  const all = await explained(instance.name, deployment).catch(() => []);
  const asleep = new Set(instance.deployments.filter((each) => !["active", "idle", "loading"].includes(each.status)).map((each) => each.id));
  const list = leavers(all.filter((each) => asleep.has(each.deployment)));
  return !list || confirm(`${TITLES[name]} ${deployment ?? instance.name}?`, { details: el("div", { class: "stack" }, el("p", {}, "To make room for it, as things are now, would leave:"), list), action: TITLES[name] });
}

/** Runs one command; asks first where requests may suffer, and where others would leave. */
export async function command(instance, name, refresh, deployment = null) {
  const inside = instance.deployments.filter((each) => !deployment || each.endpoint === deployment).reduce((sum, each) => sum + each.in_flight, 0);
  const what = deployment ?? instance.name;
  if (name === "stop" || ((name === "offload" || name === "unload") && inside)) {
    const sure = await confirm(`${TITLES[name]} ${what}?`, {
      details: el("p", {}, inside ? `${inside} requests are inside. They may finish; new ones ${name === "stop" ? "are refused" : "wait"}.` : "Its next request is refused until it is started again."),
      action: TITLES[name], danger: name === "stop",
    });
    if (!sure) return;
  }
  if ((name === "start" || name === "wake") && !(await mayPush(instance, name, deployment))) return;
  try {
    await post(`instances/${part(instance.name)}/${name}`, undefined, { deployment });
    toast(`${what} ${DONE[name]}`);
  } catch (error) {
    toast(error.message, "bad");
  }
  refresh();
}

export async function exportInstance(name) {
  try {
    const answer = await get(`instances/${part(name)}/export`);
    download(`${name}.json`, `${JSON.stringify(answer, null, 2)}\n`, "application/json");
    toast(`${name}.json holds no secrets: only where to find them`);
  } catch (error) {
    toast(error.message, "bad");
  }
}

export async function deleteInstance(instance, after) {
  const sure = await confirm(`Delete ${instance.name}?`, {
    details: el("div", { class: "stack" }, el("p", {}, `Its workers end, and ${instance.file} is removed. Its history stays for 90 days.`),
      el("p", { class: "quiet" }, "Export it first if you may want it back.")),
    action: "Delete", danger: true,
  });
  if (!sure) return;
  try {
    await remove(`instances/${part(instance.name)}`, instance.revision ? { "if-match": `"${instance.revision}"` } : {});
    toast(`${instance.name} is deleted`);
    after();
  } catch (error) {
    toast(error.message, "bad");
  }
}

/** All buttons of an instance; `small` for a row of a table: the first of them, and a menu. */
export function buttons(instance, refresh, { small = false, gone = refresh } = {}) {
  const className = small ? "tiny" : null;
  const button = (label, run, extra = "") => el("button", { type: "button", class: [className, extra].filter(Boolean).join(" ") || null,
    "aria-label": small ? `${label} ${instance.name}` : null, on: { click: run } }, label);
  const all = [
    ...["start", "wake", "offload", "unload", "stop"].filter((name) => allows(name, instance)).map((name) =>
      button(TITLES[name], () => command(instance, name, refresh))),
    el("a", { class: ["button", className].filter(Boolean).join(" "), href: `/launch?clone=${part(instance.name)}`, "aria-label": small ? `Clone ${instance.name}` : null }, "Clone"),
    button("Export", () => exportInstance(instance.name)),
    button("Delete", () => deleteInstance(instance, gone), "danger"),
  ];
  return small ? [all[0], ...menu(`More for ${instance.name}`, all.slice(1))] : all;
}

/** Which buttons there are: a table draws them again only when this changes. */
export function buttonState(instance) {
  return [instance.revision, ...["start", "wake", "offload", "unload", "stop"].filter((name) => allows(name, instance))];
}

/** A dialog that makes a token; shows it once. `preset`: projects and endpoints. */
export function generateToken(preset = {}, after = () => {}) {
  const input = (attributes) => el("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  const label = input({ value: preset.label ?? "", maxlength: 200, placeholder: "Ana's notebook" });
  const workspace = input({ value: preset.workspace ?? "default", required: true });
  const projects = input({ value: (preset.projects ?? []).join(", "), placeholder: "research, demo" });
  const endpoints = input({ value: (preset.endpoints ?? []).join(", "), placeholder: "qwen3-*" });
  const subject = input({ placeholder: "user:ana" });
  const role = el("select", {}, ["user", "operator", "workspace-admin", "admin"].map((name) => el("option", {}, name)));
  const ttl = el("select", {}, [["1h", "1 hour"], ["1d", "1 day"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["365d", "1 year"]]
    .map(([value, name]) => el("option", { value }, name)));
  ttl.value = "30d";
  const metadata = el("textarea", { rows: 2, placeholder: '{"team": "nlp"}', spellcheck: "false" });
  const limit = (placeholder) => el("input", { type: "number", min: 1, step: 1, placeholder });
  const limits = { rpm: limit("no limit"), tpm: limit("no limit"), conc: limit("no limit") };
  const mayLoad = el("select", {}, [["", "no"], ["yes", "yes"]].map(([value, name]) => el("option", { value }, name)));
  const wrong = el("p", { class: "note bad", role: "alert", hidden: true });
  const go = el("button", { class: "primary" }, "Generate Token");
  const form = el("form", { on: { submit: make } },
    field("Label", label, "A name for people: who uses it, and for what."),
    el("div", { class: "columns" }, field("Workspace", workspace, "The tenant that it counts for."), field("Valid for", ttl)),
    field("Projects", projects, "Projects that it may read, separated by commas."),
    field("Endpoints", endpoints, "Routes or models, * matches any. Makes an endpoint token, which may use only these; without, it is a user token."),
    el("details", {}, el("summary", {}, "More"), el("div", { class: "stack" },
      el("div", { class: "columns" }, field("Subject", subject, "Whom it names in logs."), field("Role", role, "operator, workspace-admin and admin also open this dashboard.")),
      field("Requests per minute", limits.rpm), field("Tokens per minute", limits.tpm), field("Requests at once", limits.conc),
      field("May load and unload", mayLoad, "The models that it may use, by POST to /v1/models/load and /v1/models/unload; an admin gives that."),
      field("Metadata", metadata, "A JSON object for the access log."))),
    wrong, el("div", { class: "actions" }, go));
  const box = dialog("Generate Token", form);

  async function make(event) {
    event.preventDefault();
    wrong.hidden = true;
    const list = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);
    const request = { workspace: workspace.value.trim(), role: role.value, ttl: ttl.value, projects: list(projects.value), endpoints: list(endpoints.value) };
    if (label.value.trim()) request.label = label.value.trim();
    if (subject.value.trim()) request.subject = subject.value.trim();
    const set = Object.entries(limits).filter(([, control]) => control.value).map(([name, control]) => [name, Number(control.value)]);
    if (set.length) request.limits = Object.fromEntries(set);
    if (mayLoad.value) request.may_load = true;
    go.disabled = true;
    try {
      if (metadata.value.trim()) request.metadata = JSON.parse(metadata.value);
      const made = await post("tokens", request);
      showOnce(made);
      after(made);
    } catch (error) {
      wrong.textContent = error instanceof SyntaxError ? `Metadata is not JSON: ${error.message}` : error.message;
      wrong.hidden = false;
    }
    go.disabled = false;
  }

  function showOnce({ token, record }) {
    const text = el("textarea", { readonly: true, rows: 5, value: token, "aria-label": "The new token", class: "token", id: "new-token" });
    form.replaceWith(el("div", { class: "stack" },
      el("p", { class: "note warn" }, "Copy it now: it is shown only this once, and kept nowhere."), text,
      el("p", { class: "quiet small" }, `Its id is ${record.jti}: revoke it by that.`),
      el("div", { class: "actions" }, el("button", { type: "button", class: "primary", on: { click: () => copy(token, "Copied the token") } }, "Copy the token"),
        el("button", { type: "button", on: { click: () => box.close() } }, "Done"))));
    text.focus();
    text.select();
  }
}
