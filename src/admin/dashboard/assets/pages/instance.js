// One instance: how it stands, how to ask it, its plots, console, events and configuration.

import { code, copyButton, data, el, field, id, show, status } from "../lib/dom.js";
import { buttonState, buttons, command, generateToken } from "../lib/actions.js";
import { get, live, news, part } from "../lib/api.js";
import { ago, count, decimal, NONE, span, time } from "../lib/format.js";
import { terminal } from "../lib/console.js";
import { board, PLOTS } from "../lib/series.js";
import { explained, paragraphs } from "../lib/explain.js";
import { configuration } from "../lib/configuration.js";
import { table } from "../lib/table.js";
import { tabs } from "../lib/tabs.js";
import * as snippets from "../lib/snippets.js";

export default async function instance(main, name) {
  document.title = `${name} – Tidegate`;
  const [detail, metrics] = await Promise.all([get(`instances/${part(name)}`), get("metrics").catch(() => [])]);
  let now = detail;
  let asked = Date.now();
  const head = el("div", { class: "head" });
  const facts = el("dl", { class: "facts" });
  const reasons = el("div", { class: "stack" });
  const models = modelTable(() => now, () => refresh());
  const events = eventList(name);
  const why = whyBox(name);
  const access = accessExample(detail);
  const errorMetrics = metrics.map((metric) => metric.name).filter((metric) => metric.startsWith("errors_"));
  const plots = board({ scope: `instance:${name}`, wanted: PLOTS, errorMetrics, gpus: () => [...new Set(now.deployments.flatMap((each) => each.gpus))] });
  const whose = el("select", { "aria-label": "Whose plots", on: { change: () => plots.scope(whose.value) } },
    el("option", { value: `instance:${name}` }, "All models"),
    detail.deployments.map((each) => el("option", { value: `deployment:${each.id}` }, each.endpoint)));
  const logs = terminal(`/api/v1/instances/${part(name)}/logs?follow=1&tail=1000`, name, { models: detail.deployments.map((each) => each.endpoint), told: async () => (await get("status")).utc_offset_seconds });
  const panels = tabs("Parts of the instance", [
    { name: "overview", title: "Overview", node: el("div", { class: "stack" },
      el("section", { class: "card" }, el("h2", {}, "Deployed models"), models.node),
      why.node,
      access.node,
      el("section", { class: "stack", "aria-label": "Plots" },
        el("div", { class: "head" }, el("h2", { class: "grow" }, "Over time"), el("div", { class: "actions" }, detail.deployments.length > 1 && whose)), plots.bar, plots.node)) },
    { name: "console", title: "Console", node: el("section", { class: "card" }, logs.node), open: logs.open, close: logs.close },
    { name: "events", title: "Events", node: el("section", { class: "card" }, events.node), open: events.load },
    { name: "configuration", title: "Configuration", node: configuration(detail) },
  ]);
  show(main, head, el("section", { class: "card stack", "aria-label": "Status" }, facts, reasons), panels.node);
  let state = "";
  draw();
  panels.start();

  function draw() {
    const fresh = JSON.stringify([now.status, buttonState(now)]);
    if (fresh !== state) {
      state = fresh;
      show(head, el("h1", {}, data(now.name, 80)), status(now.status, true), el("div", { class: "actions" },
        el("button", { type: "button", class: "primary", on: { click: () => generateToken({ projects: now.project ? [now.project] : [], label: `for ${now.name}` }) } }, "Generate Token"),
        buttons(now, () => refresh(), { gone: () => location.assign("/") })));
    }
    const idle = now.idle_seconds === null || now.idle_seconds === undefined || now.status === "loading" ? null : now.status === "active" ? 0 : now.idle_seconds + (Date.now() - asked) / 1000;
    const pairs = [
      ["Idle time", idle === null ? NONE : span(idle)],
      ["Offloads after", now.offload_after_seconds ? span(now.offload_after_seconds) : "never"],
      ["Stops after", now.idle_time_limit_seconds ? span(now.idle_time_limit_seconds) : "never"],
      ["In flight", count(now.deployments.reduce((sum, each) => sum + each.in_flight, 0))],
      ["Requests/s", decimal(now.live?.requests_per_second ?? 0)],
      ["Tokens/s", decimal(now.live?.completion_tokens_per_second ?? 0)],
      ["Project", now.project ?? "admins only"],
      ["Queue", now.queue],
      ["Route", now.ephemeral_route ? "ephemeral endpoint" : now.route],
      ["Engine", now.engine === "vllm" ? `vLLM ${now.vllm_version ?? "on PATH"}` : "stand-in"],
    ];
    if (facts.children.length !== pairs.length) show(facts, pairs.map(([title]) => el("div", {}, el("dt", {}, title), el("dd", {}))));
    pairs.forEach(([, value], index) => {
      const cell = facts.children[index].lastElementChild;
      if (cell.textContent !== value) show(cell, data(value, 60));
    });
    const told = now.deployments.filter((each) => each.reason && ["failed", "stopped"].includes(each.status));
    const text = JSON.stringify(told.map((each) => [each.id, each.reason]));
    if (reasons.dataset.text !== text) {
      reasons.dataset.text = text;
      show(reasons, told.map((each) => el("div", { class: `note ${each.status === "failed" ? "bad" : ""}` },
        el("strong", {}, data(each.endpoint, 60)), el("pre", {}, el("code", {}, each.reason)))));
    }
    // Workers side by side are rows of their own, below what they make together.
    models.set(now.deployments.flatMap((each) => [each, ...(each.replicas.length > 1 ? each.replicas.map((one, place) => ({ ...one, replica: place + 1, of: each })) : [])]));
  }

  setInterval(draw, 1000);
  const refresh = live(async () => {
    const rows = await news("instances");
    const found = rows.find((row) => row.name === name);
    if (!found) throw new Error(`${name} is not there any more`);
    now = found;
    asked = Date.now();
    draw();
  }, 2);
}

/** Why each model runs or does not, and who would leave for it. */
function whyBox(name) {
  const words = el("div", { class: "stack" });
  let last = "";
  const node = el("section", { class: "card stack", id: "why" }, el("h2", {}, "Why"), words);
  live(async () => {
    const all = await explained(name);
    const text = JSON.stringify(all);
    if (text === last) return;
    last = text;
    show(words, paragraphs(all));
  }, 5);
  return { node };
}

function modelTable(instance, refresh) {
  return table({
    label: "models", name: "models", key: (row) => (row.replica ? `${row.of.id} worker ${row.replica}` : row.id), sortBy: null,
    columns: [
      { title: "Model name", sort: false, value: (row) => [row.model, row.reason], render: (row) => row.replica ? el("div", { class: "stack replica" }, `worker ${row.replica}`, row.reason && el("span", { class: "quiet small" }, data(row.reason, 300)))
        : el("div", { class: "stack" }, data(row.endpoint, 60), row.model !== row.endpoint && el("span", { class: "quiet small" }, data(row.model, 80))) },
      { title: "Status", sort: false, value: (row) => [row.status, row.progress, row.percent, row.ready_in_seconds], render: (row) => el("div", { class: "stack" }, status(row.status), loading(row)) },
      { title: "Endpoint", sort: false, value: (row) => row.urls, render: (row) => el("div", { class: "stack" }, (row.urls ?? []).slice(0, 4).map((url) =>
        el("span", { class: "copyable" }, el("code", {}, data(url, 120)), copyButton(url, "the endpoint")))) },
      { title: "In flight", sort: false, number: true, value: (row) => [row.in_flight, row.waiting, row.max_concurrent_requests],
        render: (row) => `${count(row.in_flight)}${row.max_concurrent_requests ? ` of ${count(row.max_concurrent_requests)}` : ""}${row.waiting ? ` + ${count(row.waiting)} waiting` : ""}` },
      { title: "Tokens/s", sort: false, number: true, value: (row) => row.live?.completion_tokens_per_second ?? 0, render: (row) => (row.replica ? NONE : decimal(row.live?.completion_tokens_per_second ?? 0)) },
      { title: "Weights", sort: false, value: (row) => [row.residency, row.gpus], render: (row) => row.replica ? (row.gpus.length ? `GPU (${row.gpus.join(", ")})` : NONE) : (row.residency === "none" ? NONE : `${row.residency === "gpu" ? "GPU" : row.residency === "cpu" ? "host memory" : "disk"}${row.gpus.length ? ` (${row.gpus.join(", ")})` : ""}`) },
      { title: "", sort: false, value: (row) => [row.status, instance().deployments.length], render: (row) => instance().deployments.length > 1 && !row.replica && el("div", { class: "actions" },
        [["stopped failed", "start", "Start"], ["offloaded", "wake", "Wake"], ["active idle", "offload", "Offload"], ["active idle offloaded", "unload", "Unload"], ["active idle loading offloaded", "stop", "Stop"]]
          .filter(([when, name]) => when.split(" ").includes(row.status) && (name !== "offload" || instance().may_offload))
          .map(([, name, label]) => el("button", { type: "button", class: "tiny", "aria-label": `${label} ${row.endpoint}`, on: { click: () => command(instance(), name, refresh, row.endpoint) } }, label))) },
    ],
  });
}

function loading(row) {
  if (row.status !== "loading" || row.replica) return null;
  const words = [row.progress ?? row.phase, row.ready_in_seconds ? `about ${span(row.ready_in_seconds)} left` : null].filter(Boolean).join(", ");
  return el("div", { class: "stack" }, el("progress", { max: 100, value: row.percent ?? 0, "aria-label": `Loading of ${row.endpoint}` }),
    el("span", { class: "small quiet" }, `${row.percent ?? 0} %: ${words}`));
}

/** "Model access command line example". */
function accessExample(detail) {
  const model = el("select", {}, detail.deployments.map((each, index) => el("option", { value: String(index) }, each.endpoint)));
  const prompt = el("input", { type: "text", value: "Write a haiku about tides.", maxlength: 2000, class: "wide" });
  const kinds = [["curl", snippets.curl], ["Python", snippets.python], ["JavaScript", snippets.javascript]];
  let kind = 0;
  const block = code("Example");
  block.node.id = "access-example";
  const buttons_ = kinds.map(([name], index) => el("button", { type: "button", "aria-pressed": String(index === 0), on: { click: () => { kind = index; draw(); } } }, name));
  function draw() {
    const chosen = detail.deployments[Number(model.value)];
    buttons_.forEach((button, index) => button.setAttribute("aria-pressed", String(index === kind)));
    block.set(kinds[kind][1]({ url: chosen?.urls?.[0] ?? `${location.origin}/v1`, model: chosen?.endpoint ?? "", prompt: prompt.value, ca: detail.ca }));
  }
  model.addEventListener("change", draw);
  prompt.addEventListener("input", draw);
  draw();
  return { node: el("section", { class: "card stack" }, el("div", { class: "card-head" }, el("h2", {}, "Model access command line example"),
    el("div", { class: "segments", role: "group", "aria-label": "Language of the example" }, buttons_)),
    el("div", { class: "columns" }, field("Model", model), field("Prompt", prompt)), block.node,
    el("p", { class: "quiet small" }, `Replace ${snippets.TOKEN} with a token from `,
      el("button", { type: "button", class: "tiny", on: { click: () => generateToken({ projects: detail.project ? [detail.project] : [], label: `for ${detail.name}` }) } }, "Generate Token"), ".")) };
}

function eventList(name) {
  const list = table({
    label: "events", name: "events", key: (row) => row.key, sortBy: "-When",
    search: (row) => `${row.deployment} ${row.text}`, empty: "Nothing was decided yet.",
    columns: [
      { title: "When", value: (row) => row.at, by: (row) => row.place, render: (row) => el("time", { datetime: new Date(row.at * 1000).toISOString(), title: time(row.at) }, ago(row.at)) },
      { title: "Model", value: (row) => row.deployment, render: (row) => data(row.deployment.replace(`${name}/`, ""), 60) },
      { title: "What and why", value: (row) => row.text, render: (row) => data(row.text, 1000) },
    ],
  });
  let begun = false;
  return { node: el("div", { class: "stack", id: id("events") }, list.toolbar, list.node), load() {
    if (begun) return;
    begun = true;
    live(async () => {
      const rows = await get(`instances/${part(name)}/events`, { tail: 500 });
      // Two events of one second may say the same: their number tells them apart.
      const seen = new Map();
      list.set(rows.map((row, place) => {
        const base = `${row.at} ${row.deployment} ${row.text}`;
        seen.set(base, (seen.get(base) ?? 0) + 1);
        return { ...row, place, key: `${base} ${seen.get(base)}` };
      }));
    }, 3);
  } };
}
