// Marks of plots in words: what happened in the span, when and why, for those who point at nothing.

import { data, el, show } from "./dom.js";
import { part } from "./api.js";
import { dayAndTime, time } from "./format.js";
import { KINDS } from "./overlay.js";
import { labels, person } from "./people.js";

/** The mark that is nearest to a moment, at most so many seconds away. */
export function near(marks, at, seconds) {
  let found = null;
  for (const mark of marks) {
    if (Math.abs(mark.at - at) <= Math.min(seconds, found ? Math.abs(found.at - at) : seconds)) found = mark;
  }
  return found;
}

/** A deployment, an instance or a route, as a link. */
function whose(mark) {
  const [, kind, name] = mark.of.match(/^(instance|route):(.*)$/s) ?? [null, "instance", mark.of.split("/")[0]];
  const href = kind === "route" ? `/routes?routes.filter=${part(name)}` : `/instances/${part(name)}`;
  return el("a", { href }, data(mark.of.replace(/^(instance|route):/, ""), 60));
}

/** `3 starts, 1 edit`. */
function counted(marks) {
  return Object.entries(KINDS).map(([kind, [, one, several]]) => [marks.filter((mark) => mark.kind === kind).length, one, several])
    .filter(([number]) => number).map(([number, one, several]) => `${number} ${number === 1 ? one : several}`).join(", ");
}

/** The list, folded; `look(mark)` shows where a mark is. */
export function marksList(look) {
  const head = el("summary", {}, "What happened: loading…");
  const body = el("ul", { class: "marks" });
  const limits = el("p", { class: "quiet small", hidden: true });
  const node = el("details", { class: "card happened" }, head, el("div", { class: "stack" }, body, limits));
  let drawn = "";
  let known = new Map();
  labels().then((found) => {
    known = found;
    drawn = "";
  });

  function row(mark) {
    const [sign] = KINDS[mark.kind] ?? ["•"];
    return el("li", {},
      el("button", { type: "button", class: "tiny", "aria-label": `${dayAndTime(mark.at)}: show this ${mark.kind} in the plots`, on: { click: () => look(mark) } }, dayAndTime(mark.at)),
      el("span", { class: `kind ${mark.kind}` }, el("span", { "aria-hidden": "true" }, `${sign} `), mark.kind),
      el("span", {}, whose(mark), ": ", data(mark.text, 600), mark.by && [", by ", person(mark.by, known)]));
  }

  return {
    node,
    /** `answer` is that of `GET marks`; none where it failed, with why. */
    set(answer, failure, since) {
      if (!answer) {
        show(head, `What happened can't be shown: ${failure}`);
        return;
      }
      const text = JSON.stringify([answer, since < answer.known_since]);
      if (text === drawn) return;
      drawn = text;
      const pressed = [...body.querySelectorAll("button")].indexOf(document.activeElement);
      show(head, answer.marks.length ? `What happened: ${counted(answer.marks)}` : "What happened: nothing was started, woken, evicted or changed, and nothing failed");
      show(body, answer.marks.toReversed().map(row));
      body.querySelectorAll("button")[pressed]?.focus();
      const said = [answer.left_out && `${answer.left_out} older ones of this range are left out: choose a shorter one.`,
        since < answer.known_since && `Starts, wakes, evictions and failures before ${time(answer.known_since)} are not known any more, only edits.`].filter(Boolean).join(" ");
      show(limits, said);
      limits.hidden = !said;
    },
  };
}
