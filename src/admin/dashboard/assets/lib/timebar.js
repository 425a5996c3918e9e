// One time bar for all plots of a page: which span they show, live or not, what it is compared
// with, the moment that is looked at, and what happened then. The address keeps it.

import { data, dialog, el, field, show } from "./dom.js";
import { lag, now } from "./clock.js";
import { between, span, time, zone } from "./format.js";
import { marksList, near } from "./marks.js";

export const RANGES = [["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400], ["2 d", 172800], ["7 d", 604800], ["30 d", 2592000], ["90 d", 7776000]];
const [[, SHORTEST], [, USUAL]] = RANGES;
/** The history is kept for so long. */
const [, LONGEST] = RANGES.at(-1);
/** Nothing finer is recorded than a point each ten seconds. */
const SPAN_MIN = 30;
/** A difference of clocks that is worth a word, in seconds. */
const LAG_MIN = 60;

/** What a span may be compared with, by the word of the address: seconds before it, from its length. */
const EARLIER = {
  before: ["the range before", (length) => length],
  day: ["a day earlier", () => 86400],
  week: ["a week earlier", () => 604800],
};

/** A moment of the address: seconds since 1970, or a date and time; `NaN` where it is none. */
function moment(text) {
  if (/^\d{1,12}$/.test(text)) return Number(text);
  return /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?$/.test(text) ? Date.parse(text.replace(" ", "T")) / 1000 : Number.NaN;
}

/** A span within what is kept and what has been, in whole seconds; at least `SPAN_MIN` long. */
function within(since, until, at) {
  const length = Math.min(Math.max(until - since, SPAN_MIN), LONGEST);
  const middle = (since + until) / 2;
  const end = Math.max(Math.min(Math.ceil(middle + length / 2), Math.floor(at)), Math.ceil(at - LONGEST) + SPAN_MIN);
  return { since: Math.max(Math.floor(end - length), Math.floor(at - LONGEST)), until: end };
}

/** What an address asks for, and what of it makes no sense: `{ range, chosen, fixed, earlier, wrong }`. */
export function asked(parameters, at) {
  const wrong = [];
  const text = (name) => parameters.get(name)?.trim() ?? "";
  const quoted = (name) => `${name} “${text(name).slice(0, 40)}”`;
  let range = Number(text("range"));
  const chosen = text("range") !== "";
  if (chosen && !(range >= SPAN_MIN && range <= LONGEST)) {
    wrong.push(`${quoted("range")} is no number of seconds from ${SPAN_MIN} to ${LONGEST}`);
    range = 0;
  }
  let earlier = text("compare");
  if (earlier && !Object.hasOwn(EARLIER, earlier)) {
    wrong.push(`${quoted("compare")} is none of ${Object.keys(EARLIER).join(", ")}`);
    earlier = "";
  }
  let fixed = null;
  if (text("from") || text("to")) {
    const [since, until] = [moment(text("from")), moment(text("to"))];
    const bad = [["from", since], ["to", until]].filter(([, seconds]) => Number.isNaN(seconds));
    if (bad.length) wrong.push(...bad.map(([name]) => (text(name) ? `${quoted(name)} is no time` : `${name} is missing`)), "times are seconds since 1970, or as 2026-11-28T15:56");
    else if (since >= until) wrong.push(`${quoted("from")} is not before ${quoted("to")}`);
    else if (since > at) wrong.push(`${quoted("from")} is yet to come`);
    else if (until < at - LONGEST) wrong.push(`${quoted("to")} is more than 90 days ago, and nothing is kept for longer`);
    else {
      if (until > at + SPAN_MIN) wrong.push(`${quoted("to")} is yet to come: it is shown up to now`);
      if (since < at - LONGEST - SPAN_MIN) wrong.push(`${quoted("from")} is more than 90 days ago: it is shown from there`);
      fixed = within(Math.max(since, at - LONGEST), Math.min(until, at), at);
    }
  }
  return { range: range || USUAL, chosen: chosen && range > 0, fixed, earlier, wrong };
}

/** Seconds between two points, so that a plot has a few hundred. */
export function stepFor(range) {
  return Math.max(10, Math.ceil(range / 360 / 10) * 10);
}

/**
 * The bar: `node` sticks, `list` has the marks in words. `change()` is called when plots must be asked for anew,
 * `point(at)` when another moment is looked at, or none.
 */
export function timebar({ change, point }) {
  let { range, chosen, fixed, earlier, wrong } = asked(new URLSearchParams(location.search), now());
  let at = null;
  let marks = [];
  let told = "";

  const button = (label, sign, act) => el("button", { type: "button", "aria-label": label, title: label, on: { click: act } }, el("span", { "aria-hidden": "true" }, sign));
  const later = button("Later", "›", () => step(1));
  const moves = el("div", { class: "segments", role: "group", "aria-label": "Move the range" },
    button("Earlier", "‹", () => step(-1)), button("Zoom out", "−", () => scale(2)), button("Zoom in", "+", () => scale(0.5)), later);
  const when = el("span", { class: "when", role: "status" });
  const detail = el("span", { class: "quiet small" });
  const live = el("button", { type: "button", class: "live", on: { click: () => (fixed ? follow(null) : follow(current())) } }, "Live");
  const choice = el("div", { class: "segments", role: "group", "aria-label": "Range of the plots" }, RANGES.map(([name, seconds]) =>
    el("button", { type: "button", data: { seconds }, on: { click: () => { [range, chosen] = [seconds, true]; follow(null); } } }, name)));
  const custom = el("button", { type: "button", class: "tiny", on: { click: choose } }, "Custom…");
  const compared = el("select", { "aria-label": "Compare with", on: { change: () => { earlier = compared.value; follow(fixed); } } },
    el("option", { value: "" }, "No comparison"), Object.entries(EARLIER).map(([value, [name]]) => el("option", { value }, `With ${name}`)));
  const lane = el("div", { class: "lane", "aria-hidden": "true" });
  const slider = el("input", { type: "range", "aria-label": "Moment in the plots", on: {
    input: () => look(Number(slider.value)),
    keydown: keys,
  } });
  const words = el("p", { class: "at small" });
  const note = el("p", { class: "note warn", role: "alert", hidden: true });
  const node = el("section", { class: "card timebar", "aria-label": "Time of the plots" },
    note, el("div", { class: "row" }, moves, el("span", { class: "what" }, when, detail), live, choice, custom, compared), el("div", { class: "track" }, lane, slider), words);
  const list = marksList((mark) => {
    look(mark.at);
    slider.focus();
  });
  addEventListener("popstate", () => {
    ({ range, chosen, fixed, earlier, wrong } = asked(new URLSearchParams(location.search), now()));
    tell();
    change();
  });
  tell();

  function current() {
    const end = now();
    return fixed ?? { since: Math.floor(end - range), until: Math.floor(end) };
  }
  function length() {
    const { since, until } = current();
    return until - since;
  }

  function step(direction) {
    const { since, until } = current();
    const by = direction * (until - since);
    follow(within(since + by, until + by, now()));
  }

  /** About what is looked at, or the middle. */
  function scale(factor) {
    const { since, until } = current();
    const middle = at !== null && at >= since && at <= until ? at : (since + until) / 2;
    const half = ((until - since) * factor) / 2;
    follow(within(middle - half, middle + half, now()));
  }

  function choose() {
    const { since, until } = current();
    const written = (seconds) => {
      const day = new Date(seconds * 1000);
      return new Date(day.getTime() - day.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
    };
    const [from, to] = [since, until].map((seconds) => el("input", { type: "datetime-local", step: 1, required: true, value: written(seconds) }));
    const bad = el("p", { class: "note bad", role: "alert", hidden: true });
    const box = dialog("Range of the plots", el("form", { on: { submit: (event) => {
      event.preventDefault();
      const found = asked(new URLSearchParams({ from: from.value, to: to.value }), now());
      bad.hidden = Boolean(found.fixed);
      show(bad, found.wrong.join("; "));
      if (!found.fixed) return;
      box.close();
      follow(found.fixed);
    } } }, el("div", { class: "columns" }, field("From", from), field("To", to)), el("p", { class: "quiet small" }, `Times of this browser, ${zone()}.`), bad,
    el("div", { class: "actions" }, el("button", { class: "primary" }, "Show"))));
  }

  /** Shows a span, or follows the clock. */
  function follow(next) {
    [fixed, wrong] = [next, []];
    const address = new URL(location.href);
    const keep = (name, value) => (value ? address.searchParams.set(name, String(value)) : address.searchParams.delete(name));
    keep("range", range);
    keep("from", fixed?.since);
    keep("to", fixed?.until);
    keep("compare", earlier);
    if (address.href !== location.href) history.pushState(null, "", address);
    tell();
    change();
  }

  function tell() {
    const off = lag();
    show(when, fixed ? between(fixed.since, fixed.until) : `Live, ${zone()}`);
    live.setAttribute("aria-pressed", String(!fixed));
    later.disabled = !fixed || fixed.until >= Math.floor(now()) - 1;
    for (const each of choice.children) each.setAttribute("aria-pressed", String(!fixed && Number(each.dataset.seconds) === range));
    compared.value = earlier;
    const all = [wrong.length && `In the address: ${wrong.join("; ")}.${fixed ? "" : ` The last ${span(range)} are shown.`}`,
      Math.abs(off) > LAG_MIN && `The clock of this browser is ${span(Math.abs(off))} ${off > 0 ? "behind" : "ahead of"} the gateway's: plots go by the gateway's.`].filter(Boolean).join(" ");
    if (all !== told) show(note, all);
    told = all;
    note.hidden = !all;
    const { since, until } = current();
    // A slider that was moved stays there.
    const value = at ?? until;
    Object.assign(slider, { min: String(since), max: String(until), step: String(Math.min(stepFor(until - since), until - since)) });
    slider.value = String(value);
    look(at !== null && at >= since ? at : null, false);
    draw();
  }

  function draw() {
    const { since, until } = current();
    show(lane, marks.filter((mark) => mark.at >= since && mark.at <= until).map((mark) => {
      const tick = el("i", { class: `mark ${mark.kind}` });
      tick.style.left = `${((mark.at - since) / (until - since)) * 100}%`;
      return tick;
    }));
  }

  /** Another moment is looked at; `null` where none is. */
  function look(next, moves_ = true) {
    at = next;
    const mark = at === null ? null : near(marks, at, length() / 150);
    const said = at === null ? "" : `${time(at)}${mark ? ` · ${mark.kind} of ${mark.of}: ${mark.text}` : ""}`;
    show(words, said ? data(said, 300) : el("span", { class: "quiet" }, "Point at a plot, or move the slider: all plots show their values of that moment. Drag in a plot to zoom all."));
    slider.setAttribute("aria-valuetext", said || "no moment");
    if (moves_ && at !== null) slider.value = String(at);
    point(at);
  }

  function keys(event) {
    if (event.key === "Escape" && at !== null) look(null);
  }

  return {
    node,
    list: list.node,
    current,
    get range() { return range; },
    get fixed() { return fixed; },
    /** Seconds before, and their name; none where nothing is compared. */
    get earlier() { return earlier ? { seconds: EARLIER[earlier][1](length()), name: EARLIER[earlier][0] } : null; },
    /** A person marked a span in a plot, or wants the whole again. */
    zoom: (since, until) => follow(since === undefined || !(until > since) ? null : within(since, until, now())),
    look,
    /** Plots were drawn: with a point each so many seconds, over what happened. */
    drawn(seconds, answer, failure, nothingEarlier) {
      show(detail, [seconds ? `a point each ${span(seconds)}` : null, nothingEarlier && `nothing was recorded ${EARLIER[earlier]?.[0] ?? "earlier"}`].filter(Boolean).join("; "));
      if (answer) marks = answer.marks;
      list.set(answer, failure, current().since);
      tell();
      return marks;
    },
    /** Where all there is is newer than the shortest range, more would be an empty plot. */
    young(first) {
      if (chosen || fixed) return;
      chosen = true;
      if (first < now() - SHORTEST) return;
      range = SHORTEST;
      tell();
    },
  };
}
