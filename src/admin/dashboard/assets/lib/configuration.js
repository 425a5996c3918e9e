// The configuration of an instance, as the launch form shows it, to be read.

import { code, el, show, toast } from "./dom.js";
import { exportInstance } from "./actions.js";
import { get, part } from "./api.js";
import { group } from "./group.js";
import { optionGroups } from "./schema.js";
import { toText } from "./values.js";

/** The panel of one instance; `detail` is `GET instances/{name}`. */
export function configuration(detail) {
  const body = el("div", { class: "stack" }, el("p", { class: "quiet" }, "Loading…"));
  fill(detail, body).catch((error) => toast(error.message, "bad"));
  return el("section", { class: "card stack" },
    el("div", { class: "card-head" }, el("h2", {}, "Configuration"), el("div", { class: "actions" },
      el("a", { class: "button", href: `/launch?edit=${part(detail.name)}` }, "Edit"),
      el("a", { class: "button", href: `/launch?clone=${part(detail.name)}` }, "Clone"),
      el("button", { type: "button", on: { click: () => exportInstance(detail.name) } }, "Export as JSON"))), body);
}

async function fill(detail, body) {
  const { config } = detail;
  const instance = config.instance ?? {};
  const options = await get("options", { vllm_version: instance.vllm_version });
  const groups = optionGroups(options.options);
  const place = (table) => ({ get: (name) => table?.[name], set() {} });
  const facts = (pairs) => el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== undefined && value !== null)
    .map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, toText("json", value)))));
  const set = (title, table, list) => (list.some((option) => table?.[option.name] !== undefined)
    ? group({ title, options: list, place: place(table), key: (option) => option.key, readonly: true, open: true }).node : null);
  show(body,
    facts([["Name", instance.name], ["Service Project", instance.project ?? "none: admins only"], ["Queue", instance.queue ?? "local"],
      ["AI Gateway Route", instance.route ?? (config.route ? `${config.route.name} (its own)` : "none: ephemeral endpoint")], ["Engine", instance.engine === "sim" ? "stand-in" : "vLLM"],
      ["vLLM Version", instance.engine === "sim" ? null : instance.vllm_version ?? "the one on PATH"], ["Idle Time Limit", instance.idle?.time_limit ?? "none"],
      ["Offload after", instance.idle?.offload_after ?? "never"], ["Where weights may go", instance.idle?.levels?.join(" or ") ?? "as the options of the group Advanced say"], ["Last Action Report Interval", instance.idle?.last_action_report_interval ?? "10s"], ["File", detail.file]]),
    (config.deployment ?? []).map((table) => el("fieldset", {}, el("legend", {}, table.endpoint_name ?? table.model), el("div", { class: "stack" },
      facts([["Model", table.model], ["Model Endpoint Name", table.endpoint_name ?? table.model], ["Max Concurrent Requests", table.max_concurrent_requests ?? "no limit"],
        ["Start", table.start ?? "on-demand"], ["Makes room for others", table.keep ? "never" : "yes"]]),
      groups.map(({ title, list }) => set(title, table.options, list)),
      table.sim ? facts(Object.entries(table.sim).map(([key, value]) => [`Stand-in: ${key.replaceAll("_", " ")}`, value])) : null))),
    groups.map(({ title, list }) => set(`${title}, for all models`, instance.options, list)),
    config.route ? el("fieldset", {}, el("legend", {}, "Route"), facts(Object.entries(config.route).map(([key, value]) => [key.replaceAll("_", " "), value]))) : null,
    el("h3", {}, "Command lines"), (detail.commands ?? []).map((each) => commandBlock(each)));
}

/** How one worker is run; also the preview of the form. */
export function commandBlock({ deployment, command, notes, memory }) {
  const block = code(`Command line of ${deployment}`);
  block.set(command);
  return el("div", { class: "stack" }, el("h4", { class: "data" }, deployment), block.node,
    (memory ?? []).map((words) => el("p", { class: "small" }, `GPU memory: ${words}`)),
    notes?.length ? el("ul", { class: "small quiet" }, notes.map((note) => el("li", {}, note))) : null);
}
