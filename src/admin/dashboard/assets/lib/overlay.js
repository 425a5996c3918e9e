// What lies over a plot: marks of what happened, and the line of the moment that is looked at.

import { el, show } from "./dom.js";

/** Kinds of marks: the sign at the top of the line, the word for one, and for several. */
export const KINDS = {
  start: ["▲", "start", "starts"],
  wake: ["◐", "wake", "wakes"],
  eviction: ["⇥", "eviction", "evictions"],
  failure: ["✕", "failure", "failures"],
  edit: ["✎", "edit", "edits"],
};

/** Pixels that two marks of one kind need between them to be seen apart. */
const APART = 3;

/** `canvas` is where plotly draws; `over(at)` is called with the moment under the pointer, or null. */
export function overlay(canvas, over) {
  const lines = el("div", {});
  const cross = el("div", { class: "cross", hidden: true });
  const node = el("div", { class: "overlay", "aria-hidden": "true", hidden: true }, lines, cross);
  let [since, until, marks, at] = [0, 0, [], null];
  const area = () => canvas.querySelector(".nsewdrag")?.getBoundingClientRect();

  // At most once for each picture of the screen: all plots follow.
  let [frame, x] = [0, 0];
  canvas.addEventListener("pointermove", (event) => {
    x = event.clientX;
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const box = area();
      if (!box?.width || node.hidden) return;
      const part = (x - box.left) / box.width;
      over(part < 0 || part > 1 ? null : Math.round(since + part * (until - since)));
    });
  });
  canvas.addEventListener("pointerleave", () => {
    cancelAnimationFrame(frame);
    frame = 0;
    over(null);
  });

  const place = (moment) => (moment - since) / (until - since);

  function point(moment) {
    at = moment;
    cross.hidden = at === null || at < since || at > until;
    if (!cross.hidden) cross.style.left = `${place(at) * 100}%`;
  }

  /** Lies over the plot as it is drawn now. */
  function fit(from, to) {
    const [box, outer] = [area(), canvas.getBoundingClientRect()];
    node.hidden = !box?.width;
    if (node.hidden) return;
    if (!node.isConnected) canvas.append(node);
    Object.assign(node.style, { left: `${box.left - outer.left}px`, top: `${box.top - outer.top}px`, width: `${box.width}px`, height: `${box.height}px` });
    [since, until] = [from, to];
    const seen = new Set();
    show(lines, marks.map((mark) => {
      const x = place(mark.at);
      const key = `${mark.kind} ${Math.round((x * box.width) / APART)}`;
      if (x < 0 || x > 1 || seen.has(key)) return null;
      seen.add(key);
      const line = el("i", { class: `mark ${mark.kind}` }, KINDS[mark.kind]?.[0]);
      line.style.left = `${x * 100}%`;
      return line;
    }));
    point(at);
  }

  return {
    fit,
    point,
    set marks(next) { marks = next; },
  };
}
