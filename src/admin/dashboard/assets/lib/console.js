// The console of an instance: followed, searched, paused, kept.

import { el, show, visible, download } from "./dom.js";
import { pieces, plain, progressKey } from "./ansi.js";
import { zone, zoneOf } from "./format.js";

/** Lines on the page; older ones go. The whole log is on disk. */
const LINES_MAX = 3000;
const LINE_MAX = 4096;

/**
 * A console that follows server-sent events from `address`. `models` are choices of whose lines are followed; `told()`
 * says how far the server's clock is ahead of UTC, in seconds: lines bear its times.
 */
export function terminal(address, name, { models = [], told = null } = {}) {
  const whose = models.length > 1 && el("select", { "aria-label": "Whose lines", on: { change: again } },
    el("option", { value: "" }, "All models"), models.map((model) => el("option", {}, model)));
  const clock = el("p", { class: "quiet small" });
  const lines = [];
  const screen = el("div", { class: "console", role: "log", "aria-label": "Console", tabindex: "0" });
  const search = el("input", { type: "search", class: "filter", placeholder: "Search…", "aria-label": "Search the console", on: { input: () => redraw(), keydown: (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    step(event.shiftKey ? -1 : 1);
  } } });
  const steps = [[-1, "Previous hit", "↑"], [1, "Next hit", "↓"]].map(([way, label, sign]) =>
    el("button", { type: "button", class: "tiny", "aria-label": label, title: label, disabled: true, on: { click: () => step(way) } }, sign));
  const only = el("input", { type: "checkbox", on: { change: redraw } });
  const found = el("span", { class: "quiet small", role: "status" });
  const pause = el("button", { type: "button", "aria-pressed": "false", on: { click: toggle } }, "Pause");
  const state = el("span", { class: "quiet small" }, "Connecting…");
  const node = el("div", { class: "stack" },
    el("div", { class: "actions" }, whose, search, steps, el("label", { class: "check" }, only, "Matching lines only"), found,
      pause, el("button", { type: "button", on: { click: clear } }, "Clear"),
      el("button", { type: "button", on: { click: save } }, "Download"), state),
    screen, clock);
  /** The line that was stepped to. */
  let at = null;
  let source = null;
  let paused = false;
  let held = [];
  let atEnd = true;
  let queued = [];
  let frame = 0;
  screen.addEventListener("scroll", () => { atEnd = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - 30; });

  function open() {
    if (source) return;
    const from = new URL(address, location.origin);
    if (whose && whose.value) from.searchParams.set("deployment", whose.value);
    source = new EventSource(from);
    if (!clock.firstChild) told?.().then(tell, () => {});
    // A new connection goes on after the last line, by its id.
    source.addEventListener("open", () => show(state, paused ? "Paused" : "Following"));
    source.addEventListener("message", (event) => {
      let line;
      try {
        line = JSON.parse(event.data);
      } catch {
        line = event.data;
      }
      if (paused) {
        held.push(line);
        if (held.length > LINES_MAX) held.shift();
        show(state, `Paused: ${held.length} more lines`);
      } else {
        add(line);
      }
    });
    source.addEventListener("error", () => show(state, source.readyState === EventSource.CLOSED ? "Disconnected" : "Connecting again…"));
  }

  function close() {
    source?.close();
    source = null;
  }

  /** Follows whom else was chosen, from the start. */
  function again() {
    close();
    [held, queued] = [[], []];
    clear();
    open();
  }

  /** Names the zone of the times in lines, where it is not that of all other times. */
  function tell(seconds) {
    const [server, here] = [zoneOf(seconds / 60), zone()];
    show(clock, `Lines bear the times of the server's clock, ${server}${server === here ? "" : `; all else on this page is in ${here}`}.`);
  }

  /** To the next line that has what is searched for, or the one before. */
  function step(way) {
    const hits = lines.filter((entry) => entry.fits);
    if (!search.value || !hits.length) return;
    const place = hits.indexOf(at);
    const next = place < 0 ? (way > 0 ? 0 : -1) : place + way;
    at?.node.classList.remove("at");
    at = hits.at(next % hits.length);
    at.node.classList.add("at");
    at.node.scrollIntoView({ block: "center" });
    count();
  }

  function toggle() {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    show(pause, paused ? "Go on" : "Pause");
    show(state, paused ? "Paused" : "Following");
    if (!paused) {
      held.forEach(add);
      held = [];
    }
  }

  function clear() {
    lines.length = 0;
    queued = [];
    show(screen);
    count();
  }

  function add(line) {
    queued.push(line);
    frame ||= requestAnimationFrame(flush);
  }

  function flush() {
    frame = 0;
    for (const raw of queued) {
      const text = String(raw);
      const cut = text.length > LINE_MAX ? `${text.slice(0, LINE_MAX)}… (${text.length - LINE_MAX} more characters)` : text;
      const key = progressKey(cut);
      const before = lines.at(-1);
      const entry = { text: cut, key, node: null };
      entry.node = draw(entry);
      if (key !== null && before?.key === key) {
        before.node.replaceWith(entry.node);
        lines[lines.length - 1] = entry;
      } else {
        lines.push(entry);
        screen.append(entry.node);
      }
      if (lines.length > LINES_MAX) lines.shift().node.remove();
    }
    queued = [];
    count();
    if (atEnd) screen.scrollTop = screen.scrollHeight;
  }

  function draw(entry) {
    const words = search.value.toLowerCase();
    const row = el("div");
    for (const { text, className } of pieces(entry.text)) row.append(...marked(text, className, words));
    entry.fits = !words || plain(entry.text).toLowerCase().includes(words);
    row.hidden = only.checked && !entry.fits;
    if (entry === at) row.classList.add("at");
    return row;
  }

  function redraw() {
    at = null;
    for (const entry of lines) {
      const fresh = draw(entry);
      entry.node.replaceWith(fresh);
      entry.node = fresh;
    }
    count();
    step(1);
  }

  function count() {
    const hits = search.value ? lines.filter((entry) => entry.fits) : [];
    const place = hits.indexOf(at);
    for (const button of steps) button.disabled = !hits.length;
    show(found, search.value ? `${place < 0 ? "" : `${place + 1} of `}${hits.length} hits in ${lines.length} lines` : `${lines.length} lines`);
  }

  function save() {
    download(`${name}.log`, `${lines.map((entry) => plain(entry.text)).join("\n")}\n`, "text/plain");
  }

  return { node, open, close };
}

/** Spans of one piece, with what is searched for marked. */
function marked(text, className, words) {
  const span = (part, hit) => {
    const node = document.createElement(hit ? "mark" : "span");
    if (className) node.className = className;
    node.textContent = visible(part);
    return node;
  };
  if (!words) return [span(text, false)];
  const nodes = [];
  const low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(words); at >= 0; at = low.indexOf(words, from)) {
    if (at > from) nodes.push(span(text.slice(from, at), false));
    nodes.push(span(text.slice(at, at + words.length), true));
    from = at + words.length;
  }
  if (from < text.length) nodes.push(span(text.slice(from), false));
  return nodes;
}
