// All instances: how each stands, and what can be done to it.

import { data, el, show, status } from "../lib/dom.js";
import { live, news, part } from "../lib/api.js";
import { buttonState, buttons } from "../lib/actions.js";
import { count, decimal, NONE, span, bytes } from "../lib/format.js";
import { table } from "../lib/table.js";

const STATUSES = ["loading", "active", "idle", "offloaded", "stopping", "stopped", "failed"];

/** How often the GPUs are asked when nothing changes. */
const GPUS_MS = 10000;

export default async function instances(main) {
  document.title = "Instances – Tidegate";
  let devices = [];
  let asked = Date.now();
  let [drawnFor, askedGpus] = ["", 0];
  const idle = (row) => (row.idle_seconds === null || row.idle_seconds === undefined || ["active", "loading"].includes(row.status) ? null : row.idle_seconds + (Date.now() - asked) / 1000);
  const sum = (row, value) => row.deployments.reduce((total, each) => total + value(each), 0);
  const list = table({
    label: "instances",
    name: "instances",
    key: (row) => row.name,
    sortBy: "Name",
    search: (row) => [row.name, row.project, row.queue, row.route, row.status, ...row.deployments.flatMap((each) => [each.endpoint, each.model])].join(" "),
    empty: el("div", { class: "stack" }, el("p", {}, "No instance is configured yet. Launch one, or put a file into routes.d."),
      el("p", {}, el("a", { class: "button primary", href: "/launch" }, "Launch New"))),
    filters: [{ label: "Any status", choices: STATUSES, fits: (row, word) => row.status === word || row.deployments.some((each) => each.status === word) }],
    columns: [
      { title: "Name", value: (row) => row.name, render: (row) => el("a", { href: `/instances/${part(row.name)}` }, data(row.name, 60)) },
      { title: "Status", value: (row) => [row.status, progress(row)], by: (row) => STATUSES.indexOf(row.status),
        render: (row) => el("div", { class: "stack" }, status(row.status), progress(row) && el("span", { class: "small quiet" }, progress(row))) },
      { title: "Idle time", value: (row) => (idle(row) === null ? null : span(idle(row))), by: idle, number: true, render: (row) => (idle(row) === null ? NONE : span(idle(row))) },
      { title: "Models", value: (row) => row.deployments.map((each) => [each.endpoint, each.status]), by: (row) => row.deployments.length,
        render: (row) => el("div", { class: "stack" }, row.deployments.slice(0, 6).map((each) => el("span", {}, data(each.endpoint, 50), row.deployments.length > 1 && [" ", status(each.status)])),
          row.deployments.length > 6 && el("span", { class: "quiet" }, `and ${row.deployments.length - 6} more`)) },
      { title: "Project", value: (row) => row.project ?? "", render: (row) => (row.project ? data(row.project, 40) : el("span", { class: "quiet" }, "admins")) },
      { title: "GPUs", value: (row) => memory(row, devices), by: (row) => new Set(row.deployments.flatMap((each) => each.gpus)).size, render: (row) => bars(row, devices) },
      { title: "In flight", value: (row) => sum(row, (each) => each.in_flight), number: true,
        render: (row) => { const waiting = sum(row, (each) => each.waiting); return `${count(sum(row, (each) => each.in_flight))}${waiting ? ` + ${count(waiting)} waiting` : ""}`; } },
      { title: "Tokens/s", value: (row) => row.live?.completion_tokens_per_second ?? 0, number: true, render: (row) => decimal(row.live?.completion_tokens_per_second ?? 0) },
      { title: "", sort: false, wide: true, value: buttonState, render: (row) => el("div", { class: "actions" }, buttons(row, refresh, { small: true })) },
    ],
  });
  const facts = el("dl", { class: "facts" });
  const glance = el("section", { class: "card", "aria-label": "At a glance", hidden: true }, facts);
  show(main, el("div", { class: "head" }, el("h1", {}, "Instances"), list.toolbar), glance, el("section", { class: "card", "aria-label": "Instances" }, list.node));
  const refresh = live(async () => {
    const rows = await news("instances");
    // What is held of GPUs changes with the instances; the rest of that answer is not shown here.
    const state = JSON.stringify(rows.map((row) => [row.name, row.deployments.map((each) => [each.phase, each.gpus, each.residency])]));
    if (state !== drawnFor || Date.now() - askedGpus > GPUS_MS) {
      devices = (await news("gpus").catch(() => null))?.gpus ?? [];
      [drawnFor, askedGpus] = [state, Date.now()];
    }
    asked = Date.now();
    list.set(rows);
    glance.hidden = rows.length === 0;
    show(facts, atAGlance(rows, devices).map(([title, value, quiet]) => el("div", {}, el("dt", {}, title), el("dd", {}, value, quiet && [" ", el("span", { class: "quiet small" }, quiet)]))));
  }, 2);
}

/** All instances together: `[title, figure, what belongs to it]`. */
function atAGlance(rows, devices) {
  const deployments = rows.flatMap((row) => row.deployments);
  const are = (...words) => deployments.filter((each) => words.includes(each.status)).length;
  const sum = (list, value) => list.reduce((total, each) => total + (value(each) ?? 0), 0);
  const waiting = sum(deployments, (each) => each.waiting);
  const ready = are("active", "idle");
  return [
    ["Models ready", count(ready), `of ${count(deployments.length)}`],
    ["Loading", count(are("loading"))],
    ["Offloaded", count(are("offloaded"))],
    ["Failed", are("failed") ? el("a", { class: "bad", href: "/?instances.status=failed" }, count(are("failed"))) : count(0)],
    ["In flight", count(sum(deployments, (each) => each.in_flight)), waiting ? `+ ${count(waiting)} waiting` : null],
    ["Requests/s", decimal(sum(rows, (row) => row.live?.requests_per_second))],
    ["Tokens/s", decimal(sum(rows, (row) => row.live?.completion_tokens_per_second))],
    devices.length ? ["GPU memory held", bytes(sum(devices, (gpu) => sum(gpu.held, (holder) => holder.bytes))), `of ${bytes(sum(devices, (gpu) => gpu.memory_total))}`] : null,
  ].filter(Boolean);
}

/** Phase, percent and expected time of what is loading. */
function progress(row) {
  const loading = row.deployments.find((each) => each.status === "loading");
  if (!loading) return "";
  return [loading.progress, loading.percent !== null && loading.percent !== undefined && `${loading.percent} %`, loading.ready_in_seconds && `about ${span(loading.ready_in_seconds)} left`].filter(Boolean).join(", ");
}

/** What an instance holds of each GPU: `[index, bytes, total, asleep]`. */
function memory(row, devices) {
  const own = new Set(row.deployments.map((each) => each.id));
  const held = devices.map((gpu) => {
    const mine = gpu.held.filter((holder) => own.has(holder.deployment));
    return [gpu.index, mine.reduce((sum, holder) => sum + (holder.bytes ?? 0), 0), gpu.memory_total, mine.length > 0 && mine.every((holder) => holder.status === "offloaded"), mine.length];
  });
  return held.filter(([, , , , holders]) => holders);
}

function bars(row, devices) {
  const held = memory(row, devices);
  if (!held.length) return el("span", { class: "quiet" }, NONE);
  return el("div", { class: "stack" }, held.map(([index, used, total, asleep]) => {
    const fill = el("i", { class: asleep ? "asleep" : "held" });
    fill.style.width = `${total ? Math.min(100, (100 * used) / total) : 0}%`;
    return el("div", { class: "gpu-line", title: `GPU ${index}: ${bytes(used)} of ${bytes(total)}` }, el("div", { class: "bar", role: "img", "aria-label": `GPU ${index}: ${bytes(used)} of ${bytes(total)}` }, fill),
      el("span", { class: "small quiet", "aria-hidden": "true" }, `${index}: ${bytes(used)}`));
  }));
}
