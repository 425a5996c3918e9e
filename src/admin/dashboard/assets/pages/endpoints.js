// "Model Endpoints": what is served, how much and how fast; what is loading; compared.

import { copyButton, data, download, el, id, show, status } from "../lib/dom.js";
import { live, news, part } from "../lib/api.js";
import { count, decimal, latency, NONE, span } from "../lib/format.js";
import { plot } from "../lib/plot.js";
import { ask, askEarlier, askMarks } from "../lib/series.js";
import { csv, table } from "../lib/table.js";
import { tabs } from "../lib/tabs.js";
import { timebar } from "../lib/timebar.js";

/** Lines of one comparison. */
const COMPARED_MAX = 12;

const METRICS = [["requests", "Requests/s"], ["completion_tokens", "Completion tokens/s"], ["prompt_tokens", "Prompt tokens/s"], ["latency_p50", "Latency, median"], ["latency_p95", "Latency, p95"],
  ["latency_p99", "Latency, p99"], ["first_token_p50", "Time to first token, median"], ["first_token_p95", "Time to first token, p95"], ["in_flight", "In flight"], ["queued", "Queued"], ["errors", "Errors"]];

export default async function endpoints(main) {
  document.title = "Model Endpoints – Tidegate";
  let rows = [];
  const chosen = new Map();
  const search = (row) => [row.endpoint, ...(row.also ?? []), row.model, row.url, row.route, row.project, row.status, ...row.instances].join(" ");
  const key = (row) => `${row.scope} ${row.endpoint}`;
  const state = (row) => (row.status === "external" ? el("span", { class: "badge grey" }, "external") : status(row.status));
  const named = (row) => el("div", { class: "stack" }, data(row.endpoint, 60), row.also?.length ? el("span", { class: "quiet small" }, "also ", data(row.also.join(", "), 80)) : null, row.project && el("span", { class: "quiet small" }, data(row.project, 40)));
  const links = (row) => el("div", { class: "stack" }, row.instances.slice(0, 5).map((name) => el("a", { href: `/instances/${part(name)}` }, data(name, 60))));
  const pick = (row) => el("input", { type: "checkbox", checked: chosen.has(key(row)), "aria-label": `Compare ${row.endpoint}`, on: { change: (event) => {
    if (event.target.checked) chosen.set(key(row), row);
    else chosen.delete(key(row));
    compare();
  } } });
  const active = table({
    label: "active endpoints", name: "active", key, search, sortBy: "Endpoint", empty: "No model is active. Its first request starts it.",
    columns: [
      { title: "Compare", sort: false, value: () => "", render: pick },
      { title: "Endpoint", value: (row) => [row.endpoint, row.also], by: (row) => row.endpoint, render: named },
      { title: "Model", value: (row) => row.model, render: (row) => data(row.model, 80) },
      { title: "URL", value: (row) => row.url, render: (row) => el("span", { class: "copyable" }, el("code", {}, data(row.url, 120)), copyButton(row.url, `the URL of ${row.endpoint}`)) },
      { title: "Status", value: (row) => row.status, render: state },
      { title: "# Instances", number: true, value: (row) => row.workers, render: (row) => count(row.workers) },
      { title: "Uptime", number: true, value: (row) => row.uptime_seconds, render: (row) => span(row.uptime_seconds) },
      { title: "# Requests", number: true, value: (row) => row.requests, render: (row) => count(row.requests) },
      { title: "Requests/min", number: true, value: (row) => row.requests_per_minute, render: (row) => decimal(row.requests_per_minute) },
      { title: "Latency avg", number: true, value: (row) => row.latency_mean_seconds, render: (row) => latency(row.latency_mean_seconds) },
      { title: "Latency p95", number: true, value: (row) => row.latency_p95_seconds, render: (row) => latency(row.latency_p95_seconds) },
      { title: "Tokens/s", number: true, value: (row) => row.tokens_per_second, render: (row) => decimal(row.tokens_per_second) },
    ],
  });
  const loading = table({
    label: "loading endpoints", name: "loading", key, search, sortBy: "Instance", empty: "No model is loading.",
    columns: [
      { title: "Instance", value: (row) => row.instances, by: (row) => row.instances[0] ?? "", render: links },
      { title: "Model", value: (row) => [row.endpoint, row.model], render: (row) => el("div", { class: "stack" }, data(row.endpoint, 60), el("span", { class: "quiet small" }, data(row.model, 80))) },
      { title: "Phase", value: (row) => row.phase ?? NONE },
      { title: "Percent", value: (row) => row.percent, render: (row) => el("div", { class: "stack" }, el("progress", { max: 100, value: row.percent ?? 0, "aria-label": `Loading of ${row.endpoint}` }), `${row.percent ?? 0} %`) },
      { title: "Expected time", number: true, value: (row) => row.ready_in_seconds, render: (row) => (row.ready_in_seconds === null ? NONE : span(row.ready_in_seconds)) },
    ],
  });
  const others = table({
    label: "other endpoints", name: "other", key, search, sortBy: "Endpoint", empty: "Every model is active or loading.",
    columns: [
      { title: "Compare", sort: false, value: () => "", render: pick },
      { title: "Endpoint", value: (row) => [row.endpoint, row.also], by: (row) => row.endpoint, render: named },
      { title: "Model", value: (row) => row.model, render: (row) => data(row.model, 80) },
      { title: "Status", value: (row) => row.status, render: state },
      { title: "URL", value: (row) => row.url, render: (row) => el("span", { class: "copyable" }, el("code", {}, data(row.url, 120)), copyButton(row.url, `the URL of ${row.endpoint}`)) },
      { title: "Instances", value: (row) => row.instances, by: (row) => row.instances[0] ?? "", render: links },
      { title: "# Requests", number: true, value: (row) => row.requests, render: (row) => count(row.requests) },
    ],
  });
  const metric = el("select", { id: id("metric"), "aria-label": "What is compared", on: { change: () => compare() } }, METRICS.map(([value, title]) => el("option", { value }, title)));
  const comparison = plot({ title: "Comparison", level: "h2", zoom: (since, until) => bar.zoom(since, until), over: (at) => bar.look(at) });
  const bar = timebar({ change: () => compare(), point: (at) => comparison.point(at) });
  const hint = el("p", { class: "quiet" }, "Tick endpoints in the tables to compare them in one plot.");
  const compareBox = el("section", { class: "stack", "aria-label": "Comparison", hidden: true },
    el("div", { class: "actions" }, metric, el("button", { type: "button", on: { click: () => { chosen.clear(); for (const box of main.querySelectorAll("tbody input[type=checkbox]")) box.checked = false; compare(); } } }, "Clear")),
    bar.node, bar.list, comparison.node);
  const panel = (list, name) => el("div", { class: "card stack" }, el("div", { class: "card-head" }, list.toolbar, el("button", { type: "button", on: { click: () => save(name) } }, "Download CSV")), list.node);
  const panels = tabs("Endpoints by state", [
    { name: "active", title: "Active", node: panel(active, "active") },
    { name: "loading", title: "Loading", node: panel(loading, "loading") },
    { name: "other", title: "Stopped or failed", node: panel(others, "other") },
  ]);
  show(main, el("div", { class: "head" }, el("h1", {}, "Model Endpoints")), panels.node, hint, compareBox);
  panels.start();

  const is = { active: (row) => ["active", "idle"].includes(row.status) || (row.status === "external" && row.workers > 0), loading: (row) => row.status === "loading" };
  const of = (name) => rows.filter(name === "other" ? (row) => !is.active(row) && !is.loading(row) : is[name]);
  live(async () => {
    rows = await news("endpoints");
    active.set(of("active"));
    loading.set(of("loading"));
    others.set(of("other"));
    for (const [name, list] of [["active", "Active"], ["loading", "Loading"], ["other", "Stopped or failed"]]) {
      show(document.getElementById(`tab-${name}`), `${list} (${of(name).length})`);
    }
  }, 3);
  live(compare, 10);

  async function compare() {
    const all = [...chosen.values()].slice(0, COMPARED_MAX);
    compareBox.hidden = all.length === 0;
    hint.hidden = all.length > 0;
    if (!all.length) return;
    const shown = bar.current();
    const { earlier, fixed } = bar;
    const none = () => null;
    const answers = await Promise.all(all.map((row) => Promise.all([ask(row.scope, [metric.value], shown).catch(none),
      askEarlier(row.scope, [metric.value], shown, earlier).catch(none), askMarks(row.scope, shown).catch(none)])));
    if (fixed !== bar.fixed) return;
    const lines = (place) => answers.flatMap((each, index) => (each[place]?.series.length ? [{ ...each[place].series[0], name: all[index].endpoint }] : []));
    const told = answers.flatMap(([, , marks]) => marks ?? []);
    // An edit of an instance belongs to each of its models.
    const marks = [...new Map(told.flatMap((each) => each.marks).map((mark) => [JSON.stringify(mark), mark])).values()].sort((a, b) => a.at - b.at);
    const [own, before] = [lines(0), lines(1)];
    const happened = told.length ? { marks, left_out: told.reduce((sum, each) => sum + each.left_out, 0), known_since: Math.max(...told.map((each) => each.known_since)) } : null;
    comparison.marks = bar.drawn(own[0]?.step, happened, "the gateway can't be reached", earlier !== null && !before.some((line) => line.times.length));
    comparison.set(own, shown.since, shown.until, { fixed: fixed !== null, before, earlier: earlier?.name ?? "" });
  }

  function save(name) {
    const columns = [["endpoint", (row) => row.endpoint], ["model", (row) => row.model], ["url", (row) => row.url], ["status", (row) => row.status], ["instances", (row) => row.instances.join(" ")], ["workers", (row) => row.workers],
      ["uptime_seconds", (row) => row.uptime_seconds], ["requests", (row) => row.requests], ["requests_per_minute", (row) => row.requests_per_minute], ["latency_mean_seconds", (row) => row.latency_mean_seconds],
      ["latency_p95_seconds", (row) => row.latency_p95_seconds], ["tokens_per_second", (row) => row.tokens_per_second], ["phase", (row) => row.phase], ["percent", (row) => row.percent], ["ready_in_seconds", (row) => row.ready_in_seconds]];
    download(`endpoints-${name}.csv`, csv(columns, of(name)), "text/csv");
  }
}
