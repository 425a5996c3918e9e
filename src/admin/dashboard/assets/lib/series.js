// The plots of a scope: which there are, their data, their embedding.

import { el } from "./dom.js";
import { get, live } from "./api.js";
import { embedDialog } from "./embed.js";
import { count } from "./format.js";
import { plot } from "./plot.js";
import { stepFor, timebar } from "./timebar.js";

/** Said where GPUs tell nothing: they are simulated, or their driver does not. */
export const NO_SENSOR = "No sensor told of this in this range.";

/** Every plot of an instance or a deployment: heading and lines. */
export const PLOTS = [
  { name: "requests", title: "Total Number of Requests", lines: { requests: "requests" }, none: "No requests in this range.", total: true },
  { name: "tokens", title: "Tokens per Second", lines: { completion_tokens: "completion", prompt_tokens: "prompt" }, none: "No tokens in this range." },
  { name: "latency", title: "Latency", lines: { latency_p50: "p50", latency_p95: "p95", latency_p99: "p99" }, none: "No answers in this range." },
  { name: "first-token", title: "Time to First Token", lines: { first_token_p50: "p50", first_token_p95: "p95", first_token_p99: "p99" }, none: "No streamed answers in this range." },
  { name: "in-flight", title: "In Flight and Queued", lines: { in_flight: "in flight", queued: "queued" } },
  { name: "errors", title: "Errors by Reason", lines: null, errors: true, none: "No errors in this range." },
  { name: "cold-starts", title: "Cold Starts", lines: { cold_starts: "starts and wakes" }, none: "No starts in this range." },
  { name: "cpu", title: "CPU Usage", lines: { cpu: "workers" }, host: { cpu: "host" } },
  { name: "memory", title: "Memory", lines: { memory: "workers", memory_resident: "workers, resident" }, host: { memory: "host" } },
  { name: "network", title: "Network Throughput", lines: {}, host: { network_received: "host, received", network_sent: "host, sent" } },
  { name: "disk", title: "Disk Performance", lines: { disk_read: "workers, read", disk_written: "workers, written" }, host: { disk_read: "host, read", disk_written: "host, written" } },
  { name: "gpu-utilisation", title: "GPU Utilization", lines: {}, gpu: "gpu_utilisation", none: NO_SENSOR },
  { name: "gpu-memory", title: "GPU Memory Usage", lines: {}, gpu: "gpu_memory" },
  { name: "gpu-temperature", title: "GPU Temperature", lines: {}, gpu: "gpu_temperature", none: NO_SENSOR },
  { name: "gpu-power", title: "GPU Power", lines: {}, gpu: "gpu_power", none: NO_SENSOR },
];

/** Metrics of one question; the API takes 32. */
const METRICS_MAX = 30;

/** How many a rate makes over its range; where the first or last step was cut, a little more. */
function total(line, before, earlier) {
  const sum = ({ values, step } = { values: [], step: 0 }) => values.reduce((all, value) => all + value * step, 0);
  const [here, there] = [sum(line), sum(before)];
  return [here > 0 && `about ${count(here)} in this range`, there > 0 && `${count(there)} ${earlier}`].filter(Boolean).join(", ") || null;
}

/** Asks for metrics of a scope over a span that ends `until`. */
export async function ask(scope, metrics, { since, until }) {
  const parts = [];
  for (let from = 0; from < metrics.length; from += METRICS_MAX) parts.push(metrics.slice(from, from + METRICS_MAX));
  const answers = await Promise.all(parts.map((part) => get("series", { scope, metric: part.join(","), since: `${since}`, until: `${until}`, step: `${stepFor(until - since)}` })));
  return { ...answers[0], series: answers.flatMap((answer) => answer.series) };
}

/** The same of an earlier span, moved to this one; none where nothing is compared. */
export async function askEarlier(scope, metrics, { since, until }, earlier) {
  if (!earlier) return { series: [] };
  const by = earlier.seconds;
  const answer = await ask(scope, metrics, { since: Math.max(0, since - by), until: Math.max(1, until - by) });
  return { series: answer.series.map((line) => ({ ...line, times: line.times.map((at) => at + by) })) };
}

/** What happened in a span, of a scope. */
export const askMarks = (scope, { since, until }) => get("marks", { scope, since: `${since}`, until: `${until}` });

/**
 * Plots of a scope under a time bar. `wanted` are entries of PLOTS; `gpus()`
 * are the GPUs whose plots belong to it; `errorMetrics` the names of error counts.
 */
export function board({ scope, wanted, gpus = () => [], errorMetrics = [] }) {
  let of = scope;
  const figures = wanted.map((entry) => ({
    entry,
    figure: plot({
      title: entry.title,
      none: entry.none,
      // Beside the host, what the workers take would lie flat on the axis.
      quiet: Object.keys(entry.lines ?? {}).length ? Object.values(entry.host ?? {}) : [],
      zoom: (since, until) => bar.zoom(since, until),
      over: (at) => bar.look(at),
      tools: [el("button", { type: "button", class: "tiny", "aria-label": `Embed ${entry.title}`, on: { click: () => embed(entry) } }, "Embed")],
    }),
  }));
  const bar = timebar({ change: () => refresh(), point: (at) => figures.forEach(({ figure }) => figure.point(at)) });

  /** `[scope, { metric: name }]` for each question of one plot. */
  function questions(entry) {
    const list = [];
    if (entry.errors) list.push([of, Object.fromEntries(errorMetrics.map((name) => [name, name.replace(/^errors_/, "").replaceAll("_", " ")]))]);
    else if (Object.keys(entry.lines ?? {}).length) list.push([of, entry.lines]);
    if (entry.host) list.push(["host", entry.host]);
    if (entry.gpu) for (const index of gpus()) list.push([`gpu:${index}`, { [entry.gpu]: `GPU ${index}` }]);
    return list.filter(([, metrics]) => Object.keys(metrics).length);
  }

  /** One question per scope, with the metrics of all plots. */
  async function load() {
    const needs = new Map();
    for (const { entry } of figures) {
      for (const [asked, metrics] of questions(entry)) {
        if (!needs.has(asked)) needs.set(asked, new Set());
        for (const metric of Object.keys(metrics)) needs.get(asked).add(metric);
      }
    }
    const shown = bar.current();
    const { earlier, fixed } = bar;
    const caught = (promise) => promise.catch((error) => error);
    const marked = caught(askMarks(of, shown));
    const answers = new Map(await Promise.all([...needs].map(async ([asked, metrics]) =>
      [asked, ...await Promise.all([caught(ask(asked, [...metrics], shown)), caught(askEarlier(asked, [...metrics], shown, earlier))])]))
      .then((all) => all.map(([asked, ...both]) => [asked, both])));
    const happened = await marked;
    // Meanwhile another span was chosen: that one is asked for already.
    if (fixed !== bar.fixed || earlier?.name !== bar.earlier?.name) return;
    const all = [...answers.values()].flatMap(([answer]) => answer.series ?? []);
    const firsts = all.flatMap((line) => line.times.slice(0, 1));
    bar.young(firsts.length ? Math.min(...firsts) : 0);
    const { since, until } = fixed ?? { until: shown.until, since: shown.until - bar.range };
    const nothingEarlier = Boolean(earlier) && [...answers.values()].every(([, before]) => !before.series?.some((line) => line.times.length));
    const marks = bar.drawn(all[0]?.step, happened instanceof Error ? null : happened, happened.message, nothingEarlier);
    for (const { entry, figure } of figures) {
      const [lines, before] = [[], []];
      let failure = null;
      if (entry.gpu) figure.none = gpus().length ? entry.none : "It holds no GPU now.";
      for (const [asked, metrics] of questions(entry)) {
        const both = answers.get(asked) ?? [];
        both.forEach((answer, place) => {
          if (answer instanceof Error) {
            failure = answer;
            return;
          }
          for (const line of answer.series) {
            if (!(line.metric in metrics)) continue;
            if (entry.errors && !line.values.some((value) => value > 0)) continue;
            (place ? before : lines).push({ ...line, name: metrics[line.metric] });
          }
        });
      }
      figure.marks = marks;
      const more = { fixed: fixed !== null, before, earlier: earlier?.name ?? "", more: entry.total && lines.length ? total(lines[0], before[0], earlier?.name) : null };
      if (failure && !lines.length) figure.fail(failure.message);
      else if (!lines.length) figure.set([{ name: entry.title, unit: "", step: 10, times: [], values: [] }], since, until, more);
      else figure.set(lines, since, until, more);
    }
    // That the gateway can't be reached is told above the page.
    const unreached = [...answers.values()].flat().find((answer) => answer instanceof Error && answer.status === 0);
    if (unreached) throw unreached;
  }

  function embed(entry) {
    const [first] = questions(entry);
    if (!first) return;
    const [asked, metrics] = first;
    const { since, until } = bar.current();
    embedDialog({ scope: asked, metrics: entry.errors ? ["errors"] : Object.keys(metrics), title: entry.title, range: until - since });
  }

  const refresh = live(load, 10);
  return {
    bar: [bar.node, bar.list],
    node: el("div", { class: "plots" }, figures.map(({ figure }) => figure.node)),
    refresh,
    scope(next) {
      of = next;
      refresh();
    },
  };
}
