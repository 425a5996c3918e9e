// One plot, for an iframe of another site: read-only, live, by a signed link.

import { el, show } from "../lib/dom.js";
import { live } from "../lib/api.js";
import { plot } from "../lib/plot.js";

export default async function embed(main, link) {
  document.body.classList.add("embedded");
  const address = `/embed/${encodeURIComponent(link)}/data.json`;
  let figure = null;

  const load = async () => {
    const response = await fetch(address, { cache: "no-store", credentials: "omit" });
    const answer = await response.json().catch(() => null);
    if (!response.ok) throw new Error(answer?.error?.message ?? "This link does not work any more.");
    if (!figure) {
      document.title = answer.title;
      figure = plot({ title: answer.title, level: "h1" });
      show(main, figure.node);
    }
    const lines = answer.series.map((line) => ({ ...line, name: line.metric.replaceAll("_", " ") }));
    await figure.set(lines, answer.since, answer.until);
  };
  try {
    await load();
  } catch (error) {
    show(main, el("p", { class: "note bad", role: "alert" }, error.message));
    return;
  }
  live(load, 10);
}
