// Plots over time, by plotly.js; loaded once, drawn when seen, in the page's colours.

import { el, show } from "./dom.js";
import { measured } from "./format.js";
import { overlay } from "./overlay.js";

let library = null;

/** plotly.js, which is a classic script of its own. */
function plotly() {
  library ??= new Promise((resolve, reject) => {
    const script = el("script", { src: document.body.dataset.plotly });
    script.addEventListener("load", () => resolve(globalThis.Plotly));
    script.addEventListener("error", () => reject(new Error("plotly.js can't be loaded")));
    document.head.append(script);
  });
  return library;
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const PALETTE = ["--plot-1", "--plot-2", "--plot-3", "--plot-4", "--plot-5", "--plot-6"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

/** Times as plotly takes them: this place's clock, without a zone. */
function local(seconds) {
  const at = new Date(seconds * 1000);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

/** The seconds of a time as plotly gives it. */
const seconds = (text) => new Date(String(text).replace(" ", "T")).getTime() / 1000;

/** A series with a hole wherever more than one step lies between two points. */
function gapped(series) {
  const x = [];
  const y = [];
  series.times.forEach((time, index) => {
    const before = series.times[index - 1];
    if (before !== undefined && time - before > series.step * 1.5) {
      x.push(local(before + series.step));
      y.push(null);
    }
    x.push(local(time));
    y.push(series.values[index]);
  });
  return { x, y };
}

/** The points that no line reaches, as there is nothing beside them. */
function alone({ x, y }) {
  const lone = y.map((value, index) => value !== null && (y[index - 1] ?? null) === null && (y[index + 1] ?? null) === null);
  return { x: x.filter((_, index) => lone[index]), y: y.filter((_, index) => lone[index]) };
}

/** What axis and hover say of a unit: the divisor and suffix that fit the largest value. */
function scale(unit, most) {
  const steps = { bytes: 1024, "bytes/s": 1024 };
  if (unit === "s") return most < 1 ? [0.001, " ms"] : [1, " s"];
  if (!steps[unit]) return [1, unit === "%" || unit === "°C" || unit === "W" ? ` ${unit}` : ""];
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (most >= 1024 ** (power + 1) && power < names.length - 1) power += 1;
  return [1024 ** power, ` ${names[power]}${unit === "bytes/s" ? "/s" : ""}`];
}

/** Pixels of a text of the plots: it grows with the page's. */
const pixels = (rem) => Math.round(rem * Number.parseFloat(getComputedStyle(document.documentElement).fontSize));

function layout(unit, suffix, since, until, revision) {
  const axis = { gridcolor: color("--plot-grid"), linecolor: color("--line"), zerolinecolor: color("--plot-grid"), automargin: true,
    tickfont: { color: color("--muted"), size: pixels(0.7) } };
  return {
    margin: { l: 8, r: 8, t: 12, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: color("--text"), size: pixels(0.75) },
    hovermode: "x unified",
    hoverdistance: 40,
    hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line-strong"), font: { color: color("--text") } },
    showlegend: false, // the caption is one
    xaxis: { ...axis, type: "date", range: [local(since), local(until)] },
    yaxis: { ...axis, rangemode: "tozero", ticksuffix: suffix, fixedrange: false },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--muted"), activecolor: color("--accent"), orientation: "h" },
    uirevision: revision,
    dragmode: "zoom",
  };
}

// Without a pointer its buttons would always lie over the lines.
// Two clicks lead back to what was chosen, not to what is drawn.
const CONFIG = { displaylogo: false, doubleClick: false, responsive: true, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg" }, locale: "en" };

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const plot = plots.get(entry.target);
    if (!plot) continue;
    plot.visible = entry.isIntersecting;
    if (plot.visible) plot.draw();
  }
}, { rootMargin: "2000px" });
const plots = new Map();

/** Redrawn with other colours. */
export function recolor() {
  for (const plot of plots.values()) {
    plot.stale = true;
    plot.draw();
  }
}
addEventListener("themechange", recolor);

// Texts of plots grow with those of the page.
let drawnFor = pixels(1);
addEventListener("resize", () => {
  if (pixels(1) === drawnFor) return;
  drawnFor = pixels(1);
  recolor();
});

/**
 * A figure with a heading, the newest values, which hide and show their lines, and a plot. `tools` are buttons beside the
 * heading; `none` tells that there is nothing to show; lines named in `quiet` are hidden at first. `set(series, since, until)`
 * gives it its lines: `{ name, unit, step, times, values }`. `zoom(since, until)` is called when a person marks a range, and
 * without arguments when they want the whole again; without it, the plot keeps the range itself. `over(at)` is called with
 * the moment under the pointer, or null.
 */
export function plot({ title, tools = [], level = "h3", none = "Nothing was recorded in this range.", quiet = [], zoom = null, over = () => {} }) {
  const heading = el(level, {}, title);
  const now = el("span", { class: "now" });
  const nothing = el("p", { class: "empty" }, "Loading…");
  const canvas = el("div", { class: "canvas" }, nothing);
  const node = el("figure", { class: "plot card", "aria-label": title }, el("figcaption", {}, heading, now, tools), canvas);
  const state = { visible: false, stale: false, lines: null, since: 0, until: 0, drawn: false, kept: null, hidden: new Set(quiet), more: null, before: [], earlier: "", at: null };
  const above = overlay(canvas, over);

  state.draw = async () => {
    if (!state.visible || !state.lines || !state.stale) return;
    state.stale = false;
    const filled = state.lines.some((line) => line.times.length);
    if (!filled) {
      nothing.hidden = false;
      show(nothing, none);
      if (state.drawn) (await plotly()).purge(canvas);
      state.drawn = false;
      fit();
      return;
    }
    let Plotly;
    try {
      Plotly = await plotly();
    } catch (error) {
      nothing.hidden = false;
      show(nothing, `${error.message}: reload the page.`);
      return;
    }
    const most = [...state.lines, ...state.before].reduce((top, line) => line.values.reduce((a, b) => Math.max(a, Math.abs(b)), top), 0);
    const { unit } = state.lines[0];
    const [divisor, suffix] = scale(unit, most);
    const trace = (line, index, earlier = "") => {
      const { x, y } = gapped(line);
      const shade = color(PALETTE[index % PALETTE.length]);
      const visible = !state.hidden.has(line.name);
      const own = { type: "scatter", mode: "lines", visible, x, y: y.map((value) => (value === null ? null : value / divisor)), name: earlier ? `${line.name}, ${earlier}` : line.name,
        connectgaps: false, opacity: earlier ? 0.7 : 1, line: { color: shade, width: earlier ? 1.5 : 2, dash: earlier ? "dot" : DASHES[Math.floor(index / PALETTE.length) % DASHES.length] },
        hovertemplate: `%{y:,.4~g}${suffix}` };
      const dots = alone(own);
      return dots.x.length ? [own, { type: "scatter", mode: "markers", visible, ...dots, hoverinfo: "skip", showlegend: false, marker: { color: shade, size: 5 } }] : [own];
    };
    const traces = [...state.lines.flatMap((line, index) => trace(line, index)),
      ...state.before.flatMap((line) => trace(line, Math.max(0, state.lines.findIndex(({ name }) => name === line.name)), state.earlier))];
    const [since, until] = state.kept ?? [state.since, state.until];
    // A range that a person marked stays whatever comes; that of now moves on.
    const revision = state.kept || state.fixed ? `${since} ${until}` : "live";
    await Plotly.react(canvas, traces, layout(unit, suffix, since, until, revision), CONFIG);
    nothing.hidden = true;
    if (!state.drawn) {
      state.drawn = true;
      canvas.on("plotly_relayout", (change) => {
        if ("xaxis.range[0]" in change) marked(seconds(change["xaxis.range[0]"]), seconds(change["xaxis.range[1]"]));
      });
      canvas.on("plotly_doubleclick", () => marked());
      // Also after its place has another size.
      canvas.on("plotly_afterplot", fit);
      performance.mark("tidegate-plot");
    }
    fit();
    node.dataset.points = String(traces.reduce((sum, trace) => sum + trace.x.length, 0));
  };

  function fit() {
    above.fit(...(canvas.layout?.xaxis.range.map(seconds) ?? [0, 1]));
  }

  /** A person marked a range, or wants the whole again. */
  function marked(since, until) {
    if (zoom) return zoom(since, until);
    state.kept = since === undefined ? null : [since, until];
    state.stale = true;
    return state.draw();
  }

  /** The value of a line at the moment that is looked at, or its newest. */
  function value(line, until) {
    const place = state.at === null ? line.times.length - 1 : line.times.findLastIndex((time) => time <= state.at);
    if (place < 0) return state.at === null || !line.times.length ? "" : "nothing";
    const late = state.at === null ? line.times[place] < until - 3 * line.step - 30 : state.at >= line.times[place] + 1.5 * line.step;
    return late ? (state.at === null ? "" : "nothing") : measured(line.values[place], line.unit);
  }

  /** The values of now, or of the moment that is looked at; of several lines each with its name, as a button. */
  function caption(lines, until) {
    const values = (line) => {
      const earlier = state.before.find(({ name }) => name === line.name);
      return [value(line, until), earlier && value(earlier, until) && `(${state.earlier} ${value(earlier, until)})`].filter(Boolean).join(" ");
    };
    const drawn = lines.filter((line) => line.times.length);
    const words = JSON.stringify([drawn.map((line) => [line.name, values(line), lines.indexOf(line), state.hidden.has(line.name)]), state.more]);
    if (now.dataset.words === words) return;
    now.dataset.words = words;
    if (lines.length < 2) return show(now, [drawn.length ? values(drawn[0]) : null, state.more].filter(Boolean).join(" · "));
    // A button that has the focus stays.
    const pressed = now.contains(document.activeElement) ? document.activeElement.dataset.line : undefined;
    show(now, drawn.map((line) => {
      const button = el("button", { type: "button", class: "line", "aria-pressed": String(!state.hidden.has(line.name)), title: `Hide or show ${line.name}`, data: { line: line.name },
        on: { click: () => turn(line.name) } }, `${line.name} ${values(line)}`.trim());
      button.style.setProperty("--shade", `var(${PALETTE[lines.indexOf(line) % PALETTE.length]})`);
      return button;
    }), state.more);
    return [...now.children].find((button) => pressed !== undefined && button.dataset.line === pressed)?.focus();
  }

  function turn(name) {
    if (!state.hidden.delete(name)) state.hidden.add(name);
    caption(state.lines, state.until);
    state.stale = true;
    state.draw();
  }

  plots.set(canvas, state);
  seen.observe(canvas);
  return {
    node,
    /** `before` are lines of an earlier range, moved to this one, and `earlier` says how much. */
    set(lines, since, until, { more = null, fixed = false, before = [], earlier = "" } = {}) {
      Object.assign(state, { lines, since, until, more, fixed, before, earlier, stale: true });
      caption(lines, until);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${title}: ${[summary(lines), before.length && `${earlier}: ${summary(before)}`].filter(Boolean).join("; ")}`);
      return state.draw();
    },
    /** Shows the values of a moment; of now where it is none. */
    point(at) {
      if (at === state.at) return;
      state.at = at;
      above.point(at);
      if (state.lines) caption(state.lines, state.until);
    },
    set marks(marks) {
      above.marks = marks;
      fit();
    },
    /** Says why there is nothing to show. */
    set none(words) { none = words; },
    fail(message) {
      if (state.drawn) return;
      nothing.hidden = false;
      show(nothing, message);
    },
    forget() {
      seen.unobserve(canvas);
      plots.delete(canvas);
      node.remove();
    },
  };
}

/** The lines in words, for those who do not see them. */
function summary(lines) {
  return lines.map((line) => {
    if (!line.values.length) return `${line.name}: nothing recorded`;
    const least = line.values.reduce((a, b) => Math.min(a, b));
    const most = line.values.reduce((a, b) => Math.max(a, b));
    return `${line.name}: now ${measured(line.values.at(-1), line.unit)}, from ${measured(least, line.unit)} to ${measured(most, line.unit)}`;
  }).join("; ");
}
