// Parts of the launch form that are no options: what an instance is called, where it
// runs, which route leads to it, and when it is idle.

import { el, field, id, show } from "./dom.js";
import { duration } from "./values.js";

/** A text control that writes to a key of a table. */
export function text(table, key, attributes = {}, convert = (value) => value.trim() || undefined) {
  const input = el("input", { type: "text", spellcheck: "false", autocomplete: "off", value: table[key] ?? "", data: { key: attributes.path }, ...attributes, path: null,
    on: { input: () => { table[key] = convert(input.value); } } });
  return input;
}

const whole = (value) => (value.trim() === "" ? undefined : /^-?\d+$/.test(value.trim()) ? Number(value) : value.trim());

/** A labelled control with room for an error, known by its dotted key. */
export function entry(label, control, help, key) {
  const node = field(label, control, help);
  const wrong = el("span", { class: "error-text", id: id("wrong"), hidden: true });
  control.setAttribute("aria-describedby", [control.getAttribute("aria-describedby"), wrong.id].filter(Boolean).join(" "));
  node.append(wrong);
  node.dataset.key = key;
  return { key, label, node, input: control, error(message) {
    show(wrong, message ?? "");
    wrong.hidden = !message;
    if (message) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  } };
}

function select(table, key, choices, { fallback = "" } = {}) {
  const known = choices.some(([value]) => value === (table[key] ?? fallback));
  const all = known ? choices : [...choices, [table[key], `${table[key]}`]];
  const control = el("select", { on: { change: () => { table[key] = control.value || undefined; } } }, all.map(([value, title]) => el("option", { value }, title)));
  control.value = table[key] ?? fallback;
  return control;
}

/** Name, project, queue, engine. */
export function instanceFields(draft, { instances, queues, locked, engineChanged }) {
  const table = draft.instance;
  const projects = [...new Set(instances.map((each) => each.project).filter(Boolean))];
  const list = el("datalist", { id: id("projects") }, projects.map((value) => el("option", { value })));
  const engine = select(table, "engine", [["vllm", "vLLM"], ["sim", "Stand-in (no GPU, no download)"]], { fallback: "vllm" });
  // A stand-in has no version; the one that was written comes back with vLLM.
  let version = null;
  engine.addEventListener("change", () => {
    if (table.engine === "sim") {
      version = table.vllm_version ?? version;
      table.vllm_version = undefined;
    } else {
      table.vllm_version ??= version ?? undefined;
    }
    engineChanged();
  });
  const entries = [
    entry("Instance name", text(table, "name", { required: true, readonly: locked, placeholder: "e.g. team-llms" }), locked ? "A name stays: clone it to have another." : "Letters, digits, '.', '_' and '-'.", "instance.name"),
    entry("Service Project (Access Control)", text(table, "project", { list: list.id, placeholder: "e.g. research" }), "A token needs read access to it. Without one, only tokens of admins get in.", "instance.project"),
    entry("Queue", select(table, "queue", queues.map((name) => [name === "local" ? "" : name, name === "local" ? "local (this machine)" : name])), "Where its workers are placed.", "instance.queue"),
    entry("Engine", engine, "The stand-in behaves like vLLM towards its clients.", "instance.engine"),
  ];
  return { entries, node: el("div", { class: "fields" }, entries.map((each) => each.node), list) };
}

/** The route: none, one that is there, or one of the file's own. */
export function routeFields(draft, routes) {
  const own = el("div", { class: "fields" });
  const choice = el("select", { on: { change } },
    el("option", { value: "" }, "None: an ephemeral endpoint is made"),
    routes.filter((route) => !route.ephemeral && route.name !== draft.route?.name).map((route) => el("option", { value: `route:${route.name}` }, `${route.name} (${route.path})`)),
    el("option", { value: "own" }, "A new route in this file"));
  const named = draft.instance.route;
  choice.value = draft.route ? "own" : named ? `route:${named}` : "";
  if (choice.value === "" && named) {
    choice.append(el("option", { value: `route:${named}` }, `${named} (not there)`));
    choice.value = `route:${named}`;
  }
  const chosen = entry("AI Gateway Route", choice, "The address of the service: one that an admin configured, or none.", "instance.route");
  let entries = [chosen];
  let kept = draft.route;

  function change() {
    if (choice.value === "own") {
      draft.route = kept ?? { name: draft.instance.name || undefined, project: draft.instance.project };
      draft.instance.route = undefined;
    } else {
      kept = draft.route ?? kept;
      draft.route = undefined;
      draft.instance.route = choice.value.replace(/^route:/, "") || undefined;
    }
    draw();
  }

  function draw() {
    entries = [chosen];
    own.hidden = !draft.route;
    if (!draft.route) return show(own);
    const route = draft.route;
    const models = { get text() { return Array.isArray(route.models) ? route.models.join(", ") : route.models ?? ""; }, set text(value) {
      const list = (value ?? "").split(",").map((word) => word.trim()).filter(Boolean);
      route.models = list.length ? list : undefined;
    } };
    const open = el("select", { on: { change: () => { route.public = open.value === "public" ? true : undefined; } } },
      el("option", { value: "" }, "tokens with the route's project"), el("option", { value: "public" }, "any valid token"));
    open.value = route.public ? "public" : "";
    const timeouts = route.timeouts ?? {};
    const time = (key) => text(timeouts, key, { placeholder: { first_byte: "300s", idle: "120s", cold_start: "600s" }[key] }, (value) => {
      queueMicrotask(() => { route.timeouts = Object.values(timeouts).some(Boolean) ? timeouts : undefined; });
      return duration(value, "s");
    });
    const more = [
      entry("Route name", text(route, "name", { placeholder: "e.g. chat" }), "Also its path, unless another is given.", "route.name"),
      entry("Path", text(route, "path", { placeholder: "e.g. /chat" }), "https://HOST/chat/v1/…", "route.path"),
      entry("Models", text(models, "text", { placeholder: "e.g. chat, gpt-4o-mini" }), "Names that lead to it on /v1, separated by commas.", "route.models"),
      entry("Project of the route", text(route, "project", { placeholder: "e.g. research" }), "A token needs read access to it.", "route.project"),
      entry("Who may enter", open, null, "route.public"),
      entry("Concurrent requests", text(route, "max_concurrent_requests", { inputmode: "numeric", placeholder: "no limit" }, whole), null, "route.max_concurrent_requests"),
      entry("Requests that may wait", text(route, "queue_requests_max", { inputmode: "numeric", placeholder: "0: deny at once" }, whole), null, "route.queue_requests_max"),
      entry("Longest wait", text(route, "queue_wait_max", { placeholder: "30s" }, (value) => duration(value, "s")), null, "route.queue_wait_max"),
      entry("Requests per minute and token", text(route, "requests_per_minute", { inputmode: "numeric", placeholder: "no limit" }, whole), null, "route.requests_per_minute"),
      entry("Tokens per minute and token", text(route, "tokens_per_minute", { inputmode: "numeric", placeholder: "no limit" }, whole), null, "route.tokens_per_minute"),
      entry("First byte within", time("first_byte"), null, "route.timeouts.first_byte"),
      entry("Silence of a stream at most", time("idle"), null, "route.timeouts.idle"),
      entry("Cold start within", time("cold_start"), null, "route.timeouts.cold_start"),
    ];
    entries.push(...more);
    return show(own, more.map((each) => each.node));
  }
  draw();
  return { get entries() { return entries; }, node: el("div", { class: "stack" }, el("div", { class: "fields" }, chosen.node), own) };
}

/** "Idle options". */
export function idleFields(draft) {
  const { idle } = draft.instance;
  const levels = {
    get text() { return Array.isArray(idle.levels) ? [...idle.levels].sort().join(",") : undefined; },
    set text(value) { idle.levels = value ? value.split(",") : undefined; },
  };
  const entries = [
    entry("Idle Time Limit (Hours)", text(idle, "time_limit", { placeholder: "never" }, (value) => duration(value, "h")), "Idle time after which the worker is stopped; a number of hours, or \"90m\". Unset: never.", "instance.idle.time_limit"),
    entry("Offload after", text(idle, "offload_after", { placeholder: "never" }, (value) => duration(value, "m")), "Idle time after which the weights leave the GPU; minutes, or \"30s\". Needs levels, or an offloading option of the group Advanced.", "instance.idle.offload_after"),
    entry("Where weights may go", select(levels, "text", [["", "as the options of the group Advanced say"], ["cpu", "host memory: quick to come back"], ["disk", "dropped: takes no host memory"], ["cpu,disk", "either: whichever takes less time"]]), "With both, the measured cost chooses, and the files are used where host memory is full: more models share the GPUs.", "instance.idle.levels"),
    entry("Last Action Report Interval (Seconds)", text(idle, "last_action_report_interval", { placeholder: "10" }, (value) => duration(value, "s")), "How often last activity is reported. A worker in use is never idle. Default: 10 s.", "instance.idle.last_action_report_interval"),
  ];
  return { entries, node: el("div", { class: "fields" }, entries.map((each) => each.node)) };
}

/** What is not an option of one model: its name, limits, start; and how a stand-in behaves. */
export function modelFields(table, { engine }) {
  const start = select(table, "start", [["", "with its first request"], ["boot", "with the gateway"]]);
  if (table.start === "on-demand") start.value = "";
  const keep = el("select", { on: { change: () => { table.keep = keep.value ? true : undefined; } } },
    el("option", { value: "" }, "yes, when it is idle"), el("option", { value: "keep" }, "never"));
  keep.value = table.keep ? "keep" : "";
  const several = table.replicas ?? {};
  const many = (key, placeholder) => text(several, key, { inputmode: "numeric", placeholder }, (value) => {
    queueMicrotask(() => { table.replicas = Object.values(several).some((each) => each !== undefined) ? several : undefined; });
    return whole(value);
  });
  const entries = [
    entry("Model", text(table, "model", { required: true, placeholder: "e.g. Qwen/Qwen3-8B" }), "A name on the Hugging Face hub, or a directory that the admin allows.", "deployment.model"),
    entry("Model Endpoint Name", text(table, "endpoint_name", { placeholder: "the model's name" }), "What clients write in `model`. Default: the model's name.", "deployment.endpoint_name"),
    entry("Max Concurrent Requests", text(table, "max_concurrent_requests", { inputmode: "numeric", placeholder: "no limit" }, whole), "A further one is denied at once instead of being kept waiting.", "deployment.max_concurrent_requests"),
    entry("Longest Request", text(table, "max_request_duration", { placeholder: "no limit" }, (value) => duration(value, "m")), "One that takes longer is ended with an error; minutes, or \"30s\".", "deployment.max_request_duration"),
    entry("Starts", start, null, "deployment.start"),
    entry("Workers at most", many("max", "1"), "With more load another is started, on another GPU.", "deployment.replicas.max"),
    entry("Workers at least", many("min", "0"), "So many are started with the gateway, and stay.", "deployment.replicas.min"),
    entry("Another worker from", many("requests_each", "32"), "Requests at work or waiting, for each worker that there is.", "deployment.replicas.requests_each"),
    entry("Requests of one worker at most", many("requests_max", "no limit"), "Others wait, as the route's queue allows.", "deployment.replicas.requests_max"),
    entry("Makes room for others", keep, "Whether it may be moved off its GPU when another model is asked for.", "deployment.keep"),
  ];
  const nodes = [el("div", { class: "fields" }, entries.map((each) => each.node))];
  if (engine === "sim") {
    const sim = table.sim ?? {};
    const write = (convert) => (value) => {
      queueMicrotask(() => { table.sim = Object.values(sim).some((each) => each !== undefined) ? sim : undefined; });
      return convert(value);
    };
    const plain = (value) => value.trim() || undefined;
    const own = [["load", "Load time", "3s", (value) => duration(value, "s")], ["wake", "Wake time", "200ms", (value) => duration(value, "ms")], ["sleep", "Sleep time", "300ms", (value) => duration(value, "ms")],
      ["first_token", "First token after", "50ms", (value) => duration(value, "ms")], ["tokens_per_second", "Tokens per second", "50", (value) => (value.trim() === "" || Number.isNaN(Number(value)) ? plain(value) : Number(value))],
      ["weights", "Weights", "16GiB", plain], ["context", "Stays on the GPU asleep", "1GiB", plain]]
      .map(([key, title, placeholder, convert]) => entry(title, text(sim, key, { placeholder }, write(convert)), null, `deployment.sim.${key}`));
    entries.push(...own);
    nodes.push(el("h4", {}, "How the stand-in behaves"), el("div", { class: "fields" }, own.map((each) => each.node)));
  }
  return { entries, node: el("div", { class: "stack" }, nodes) };
}
