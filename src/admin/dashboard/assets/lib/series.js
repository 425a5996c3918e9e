// The plots of a scope: which there are, their data, their embedding.

import { el } from "./dom.js";
import { get, live } from "./api.js";
import { embedDialog } from "./embed.js";
import { count, time, zone } from "./format.js";
import { plot, RANGES, ranges, stepFor } from "./plot.js";

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
function total({ values, step }) {
  const sum = values.reduce((all, value) => all + value * step, 0);
  return sum > 0 ? `about ${count(sum)} in this range` : null;
}

/** Asks for metrics of a scope over a range that ends now, or at `end`. */
export async function ask(scope, metrics, range, end = null) {
  const since = `${Math.floor((end ?? Date.now() / 1000) - range)}`;
  const until = end && `${end}`;
  const parts = [];
  for (let from = 0; from < metrics.length; from += METRICS_MAX) parts.push(metrics.slice(from, from + METRICS_MAX));
  const answers = await Promise.all(parts.map((part) => get("series", { scope, metric: part.join(","), since, until, step: `${stepFor(range)}` })));
  return { ...answers[0], series: answers.flatMap((answer) => answer.series) };
}

/** A range from second to second, at least ten of them; none where it is none. */
function marked(since, until) {
  if (!(until - since > 0)) return null;
  const middle = Math.round((since + until) / 2);
  return until - since >= 10 ? { since: Math.floor(since), until: Math.ceil(until) } : { since: middle - 5, until: middle + 5 };
}

/**
 * Plots of a scope, with the choice of a range. `wanted` are entries of PLOTS; `gpus()`
 * are the GPUs whose plots belong to it; `errorMetrics` the names of error counts.
 */
export function board({ scope, wanted, gpus = () => [], errorMetrics = [] }) {
  const parameters = new URLSearchParams(location.search);
  let range = Number(parameters.get("range")) || 3600;
  let chosen = parameters.has("range");
  // A range that a person marked, `{ since, until }`; none while the plots follow the clock.
  let fixed = marked(Number(parameters.get("from")), Number(parameters.get("until")));
  let of = scope;
  const figures = wanted.map((entry) => ({
    entry,
    figure: plot({
      title: entry.title,
      none: entry.none,
      // Beside the host, what the workers take would lie flat on the axis.
      quiet: Object.keys(entry.lines ?? {}).length ? Object.values(entry.host ?? {}) : [],
      zoom,
      tools: [el("button", { type: "button", class: "tiny", "aria-label": `Embed ${entry.title}`, on: { click: () => embed(entry) } }, "Embed")],
    }),
  }));
  const choice = ranges(fixed ? 0 : range, (seconds) => {
    [range, chosen] = [seconds, true];
    follow(null);
  });
  const when = el("span", { class: "quiet small", role: "status" });
  const back = el("button", { type: "button", class: "tiny", on: { click: () => follow(null) } }, "Live");
  const bar = el("div", { class: "actions" }, when, back, choice);
  tell();

  /** All plots of the page show the range that was marked in one. */
  function zoom(since, until) {
    follow(since === undefined ? null : marked(since, until));
  }

  function follow(next) {
    fixed = next;
    const address = new URL(location.href);
    const keep = (name, value) => (value ? address.searchParams.set(name, String(value)) : address.searchParams.delete(name));
    keep("range", range);
    keep("from", fixed?.since);
    keep("until", fixed?.until);
    history.replaceState(null, "", address);
    tell();
    refresh();
  }

  function tell() {
    when.textContent = fixed ? `${time(fixed.since).replace(` ${zone()}`, "")} to ${time(fixed.until)}` : `Live, ${zone()}`;
    back.hidden = !fixed;
    choice.press(fixed ? 0 : range);
  }

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
    const answers = new Map(await Promise.all([...needs].map(async ([asked, metrics]) => {
      try {
        return [asked, fixed ? await ask(asked, [...metrics], fixed.until - fixed.since, fixed.until) : await ask(asked, [...metrics], range)];
      } catch (error) {
        return [asked, error];
      }
    })));
    const until = fixed?.until ?? Date.now() / 1000;
    if (!chosen && !fixed) shorten([...answers.values()].flatMap((answer) => answer.series ?? []), until);
    chosen = true;
    const since = fixed?.since ?? until - range;
    for (const { entry, figure } of figures) {
      const lines = [];
      let failure = null;
      if (entry.gpu) figure.none = gpus().length ? entry.none : "It holds no GPU now.";
      for (const [asked, metrics] of questions(entry)) {
        const answer = answers.get(asked);
        if (answer instanceof Error) {
          failure = answer;
          continue;
        }
        for (const line of answer.series) {
          if (!(line.metric in metrics)) continue;
          if (entry.errors && !line.values.some((value) => value > 0)) continue;
          lines.push({ ...line, name: metrics[line.metric] });
        }
      }
      if (failure && !lines.length) figure.fail(failure.message);
      else if (!lines.length) figure.set([{ name: entry.title, unit: "", step: 10, times: [], values: [] }], since, until, null, fixed !== null);
      else figure.set(lines, since, until, entry.total ? total(lines[0]) : null, fixed !== null);
    }
  }

  /** Where all of it is newer than a quarter of an hour, more would be an empty plot. */
  function shorten(lines, until) {
    const firsts = lines.flatMap((line) => line.times.slice(0, 1));
    if (!firsts.length || Math.min(...firsts) < until - RANGES[0][1]) return;
    [, range] = RANGES[0];
    tell();
  }

  function embed(entry) {
    const [first] = questions(entry);
    if (!first) return;
    const [asked, metrics] = first;
    embedDialog({ scope: asked, metrics: entry.errors ? ["errors"] : Object.keys(metrics), title: entry.title, range: fixed ? fixed.until - fixed.since : range });
  }

  const refresh = live(load, 10);
  return {
    bar,
    node: el("div", { class: "plots" }, figures.map(({ figure }) => figure.node)),
    refresh,
    scope(next) {
      of = next;
      refresh();
    },
  };
}
