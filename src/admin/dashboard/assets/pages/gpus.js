// GPUs: who holds what, who sleeps where, what is moved out next.

import { data, el, show, status } from "../lib/dom.js";
import { get, live, news, part } from "../lib/api.js";
import { ago, bytes, decimal, NONE } from "../lib/format.js";
import { bar, gpuBar, legend } from "../lib/gpu_bar.js";
import { board, NO_SENSOR } from "../lib/series.js";
import { table } from "../lib/table.js";

const PLOTS = [
  { name: "gpu-utilisation", title: "GPU Utilization", lines: {}, gpu: "gpu_utilisation", none: NO_SENSOR },
  { name: "gpu-memory", title: "GPU Memory Usage", lines: {}, gpu: "gpu_memory" },
  { name: "gpu-temperature", title: "GPU Temperature", lines: {}, gpu: "gpu_temperature", none: NO_SENSOR },
  { name: "gpu-power", title: "GPU Power", lines: {}, gpu: "gpu_power", none: NO_SENSOR },
  { name: "host-cpu", title: "CPU of the Host", lines: {}, host: { cpu: "host" } },
  { name: "host-memory", title: "Memory of the Host", lines: {}, host: { memory: "host" } },
  { name: "host-network", title: "Network of the Host", lines: {}, host: { network_received: "received", network_sent: "sent" } },
  { name: "host-disk", title: "Disks of the Host", lines: {}, host: { disk_read: "read", disk_written: "written" } },
];

/** A deployment as a link to its instance; one of another project has no name. */
function owner(deployment) {
  if (deployment === "-") return el("span", { class: "quiet" }, "another project");
  return el("a", { href: `/instances/${part(deployment.split("/")[0])}` }, data(deployment, 70));
}

export default async function gpus(main) {
  document.title = "GPUs – Tidegate";
  let view = await get("gpus");
  const devices = el("div", { class: "columns" });
  const host = el("section", { class: "card stack" });
  const sleeping = table({
    label: "sleeping models", name: "sleeping", key: (row) => `${row.deployment} ${row.since}`, empty: "No model sleeps.",
    columns: [
      { title: "Model", value: (row) => row.deployment, render: (row) => owner(row.deployment) },
      { title: "Weights are", value: (row) => row.residency, render: (row) => (row.residency === "cpu" ? "in host memory" : row.residency === "disk" ? "on disk" : row.residency) },
      { title: "Since", value: (row) => row.since, render: (row) => ago(row.since) },
      { title: "Bound to GPUs", value: (row) => row.gpus, render: (row) => row.gpus.join(", ") || NONE },
      { title: "Host memory", number: true, value: (row) => row.bytes, render: (row) => bytes(row.bytes) },
    ],
  });
  const waiting = table({
    label: "waiting models", name: "waiting", key: (row) => `${row.deployment} ${row.why}`, empty: "No model waits for room.",
    columns: [
      { title: "Model", value: (row) => row.deployment, render: (row) => owner(row.deployment) },
      { title: "Since", value: (row) => row.since, render: (row) => ago(row.since) },
      { title: "What it waits for", value: (row) => row.why, render: (row) => data(row.why, 600) },
    ],
  });
  const plots = board({ scope: "host", wanted: PLOTS.filter((entry) => !entry.gpu || view.gpus.length), gpus: () => view.gpus.map((gpu) => gpu.index) });
  show(main, el("div", { class: "head" }, el("h1", {}, "GPUs")), devices, host,
    el("div", { class: "columns" }, el("section", { class: "card" }, el("h2", {}, "Asleep"), sleeping.node), el("section", { class: "card" }, el("h2", {}, "Waiting for room, the longest first"), waiting.node)),
    el("section", { class: "stack", "aria-label": "Plots" }, el("h2", {}, "Over time"), plots.bar, plots.node));
  let drawn = "";
  live(async () => {
    view = await news("gpus");
    const text = JSON.stringify([view.gpus, view.host]);
    if (text !== drawn) {
      drawn = text;
      show(devices, view.gpus.length ? view.gpus.map(device)
        : el("p", { class: "card empty" }, view.source === "none" ? "No GPU is used: gpus.source is \"none\"." : "No GPU was found. Workers run on the CPU."));
      drawHost(host, view.host);
    }
    sleeping.set(view.sleeping);
    waiting.set(view.waiting);
  }, 2);
}

function device(gpu) {
  return el("section", { class: "card stack" },
    el("div", { class: "card-head" }, el("h2", {}, `GPU ${gpu.index}`), data(gpu.name, 60)), gpuBar(gpu), legend(gpu),
    el("dl", { class: "facts" }, [["Memory", bytes(gpu.memory_total)], ["Free", bytes(gpu.memory_free)], ["In use", bytes(gpu.memory_used)],
      ["Utilization", gpu.utilisation === null ? NONE : `${decimal(gpu.utilisation)} %`], ["Temperature", gpu.temperature === null ? NONE : `${decimal(gpu.temperature)} °C`], ["Power", gpu.power === null ? NONE : `${decimal(gpu.power)} W`]]
      .map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value)))),
    gpu.held.length ? el("div", { class: "scroll" }, el("table", { class: "cards", role: "table", "aria-label": `Who holds GPU ${gpu.index}` },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ["Model", "Status", "Holds", "Moved out for another?"].map((title) => el("th", { role: "columnheader", scope: "col" }, title)))),
      el("tbody", { role: "rowgroup" }, gpu.held.map((holder) => el("tr", { role: "row" },
        el("td", { role: "cell", "data-label": "Model" }, owner(holder.deployment)), el("td", { role: "cell", "data-label": "Status" }, status(holder.status)),
        el("td", { role: "cell", class: "short", "data-label": "Holds" }, bytes(holder.bytes)), el("td", { role: "cell", "data-label": "Moved out?" }, data(holder.evictable, 300))))))) : el("p", { class: "quiet" }, "No one holds any of it."));
}

function drawHost(node, host) {
  const facts = [["Main memory", bytes(host.memory_total)], ["In use", bytes(host.memory_used)], ["Offloaded weights", bytes(host.offloaded)], ["They may take", bytes(host.budget)], ["Processors", host.processors ?? NONE]];
  show(node, el("h2", {}, "Host memory"),
    host.memory_total ? bar([[host.offloaded ?? 0, "asleep"], [Math.max(0, (host.memory_used ?? 0) - (host.offloaded ?? 0)), "other"]], host.memory_total, `Host: ${bytes(host.memory_used)} of ${bytes(host.memory_total)} in use`) : null,
    el("div", { class: "legend" }, el("span", { class: "asleep" }, "offloaded weights"), el("span", { class: "other" }, "others"), el("span", {}, "free")),
    el("dl", { class: "facts" }, facts.map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, String(value))))));
}
