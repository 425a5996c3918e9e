// All instances: how each stands, and what can be done to it.

import { data, el, show, status } from "../lib/dom.js";
import { live, news, part } from "../lib/api.js";
import { buttonState, buttons, command } from "../lib/actions.js";
import { explained } from "../lib/explain.js";
import { ago, count, decimal, NONE, span, bytes } from "../lib/format.js";
import { gpuBar } from "../lib/gpu_bar.js";
import { problemList, problems } from "../lib/problems.js";
import { table } from "../lib/table.js";

/** What stands for several: models that answer at once, and those that requests wait for. */
const KINDS = { ready: (each) => ["active", "idle"].includes(each.status), waiting: (each) => each.waiting > 0 };
const STATUSES = ["loading", "active", "idle", "offloaded", "stopping", "stopped", "failed"];

/** How many of those that wait are asked why. */
const WAITING_MAX = 12;
/** How often the same problems are drawn anew. */
const TELL_MS = 10000;
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
    filters: [{ label: "Any status", choices: [...Object.keys(KINDS), ...STATUSES], fits: (row, word) => (KINDS[word] ? row.deployments.some(KINDS[word]) : row.status === word || row.deployments.some((each) => each.status === word)) }],
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
  const state = el("div");
  const strip = el("a", { class: "strip", href: "/gpus", hidden: true });
  let [told, toldAt, drawnGpus, drawnFacts] = ["", 0, "", ""];
  const glance = el("section", { class: "card", "aria-label": "At a glance", hidden: true }, facts, strip);
  show(main, state, glance, el("div", { class: "head" }, el("h1", {}, "Instances"), list.toolbar), el("section", { class: "card", "aria-label": "Instances" }, list.node));
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
    await tell(rows);
    drawStrip();
    glance.hidden = rows.length === 0;
    drawFacts(atAGlance(rows, devices));
  }, 2);

  /** A link that has the focus stays. */
  function drawFacts(all) {
    const text = JSON.stringify(all.map(([title, value, quiet]) => [title, value.textContent ?? value, quiet?.textContent ?? quiet]));
    if (text === drawnFacts || facts.contains(document.activeElement)) return;
    drawnFacts = text;
    show(facts, all.map(([title, value, quiet]) => el("div", {}, el("dt", {}, title), el("dd", {}, value, quiet && [" ", el("span", { class: "quiet small" }, quiet)]))));
  }

  /** Whether all is well, or what is not. */
  async function tell(rows) {
    const now = await news("status");
    const waiting = (now.problems ?? []).filter((each) => each.kind === "waiting").slice(0, WAITING_MAX);
    const room = new Map(await Promise.all(waiting.map(async (each) => [each.name, (await explained(each.of).catch(() => [])).find((one) => one.deployment === each.name)?.lines[0]])));
    const all = problems(now, (each) => command(rows.find((row) => row.name === each.of) ?? { name: each.of, deployments: [] }, "start", refresh, each.name.slice(each.of.length + 1)), room);
    const models = rows.flatMap((row) => row.deployments);
    const ready = models.filter(KINDS.ready).length;
    const well = `All well: nothing fails, nothing waits for room. ${ready} of ${models.length} models ${ready === 1 ? "is" : "are"} ready; the others start when they are asked.`;
    const text = JSON.stringify([all.map((each) => [each.what.map((part_) => part_.textContent ?? part_), each.why, each.since && ago(each.since)]), well]);
    // Seconds alone are told anew now and then: what is about to be pressed stays.
    const shape = text.replace(/[\d.]+/g, "");
    if ((shape === told && Date.now() - toldAt < TELL_MS) || (!rows.length && !all.length)) return;
    [told, toldAt] = [shape, Date.now()];
    // A button that has the focus stays.
    if (state.contains(document.activeElement) && state.querySelectorAll("li").length === all.length) return;
    show(state, problemList(all, well));
  }

  function drawStrip() {
    const text = JSON.stringify(devices.map((gpu) => [gpu.index, gpu.held]));
    if (text === drawnGpus) return;
    drawnGpus = text;
    strip.hidden = !devices.length;
    show(strip, devices.map((gpu) => el("span", { class: "gpu-strip" }, el("span", { class: "small quiet" }, `GPU ${gpu.index}`), gpuBar(gpu))));
  }
}

/** All instances together: `[title, figure, what belongs to it]`. */
function atAGlance(rows, devices) {
  const deployments = rows.flatMap((row) => row.deployments);
  const are = (...words) => deployments.filter((each) => words.includes(each.status)).length;
  const sum = (list, value) => list.reduce((total, each) => total + (value(each) ?? 0), 0);
  const waiting = sum(deployments, (each) => each.waiting);
  const ready = are("active", "idle");
  const to = (word, number, class_ = null) => (number ? el("a", { class: class_, href: `/?instances.status=${word}` }, count(number)) : count(0));
  const link = (href, figure) => el("a", { href }, figure);
  return [
    ["Models ready", to("ready", ready), `of ${count(deployments.length)}`],
    ["Loading", to("loading", are("loading"))],
    ["Offloaded", to("offloaded", are("offloaded"))],
    ["Stopped", to("stopped", are("stopped"))],
    ["Failed", to("failed", are("failed"), "bad")],
    ["In flight", to("active", sum(deployments, (each) => each.in_flight)), waiting ? el("a", { href: "/?instances.status=waiting" }, `+ ${count(waiting)} waiting`) : null],
    ["Requests/s", link("/endpoints", decimal(sum(rows, (row) => row.live?.requests_per_second)))],
    ["Tokens/s", link("/endpoints", decimal(sum(rows, (row) => row.live?.completion_tokens_per_second)))],
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
