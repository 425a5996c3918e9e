// The memory of a GPU as a bar, with a colour for each who holds some of it.

import { data, el } from "./dom.js";
import { bytes } from "./format.js";

/** There are more deployments than colours. */
const SHADES = 6;

/** A colour for a deployment, the same on every GPU and page. */
function shade(holder) {
  let sum = 0;
  for (const letter of holder.deployment) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return `${holder.deployment === "-" ? "strange" : `shade-${(sum % SHADES) + 1}`}${holder.status === "offloaded" ? " sleeps" : ""}`;
}

const name = (holder) => (holder.deployment === "-" ? "another project" : holder.deployment);

/** A bar of parts `[bytes, class, title]` of a whole. */
export function bar(parts, total, label) {
  return el("div", { class: "bar tall", role: "img", "aria-label": label }, parts.filter(([size]) => size > 0).map(([size, class_, title]) => {
    const fill = el("i", { class: class_, title });
    fill.style.width = `${Math.min(100, (100 * size) / total)}%`;
    return fill;
  }));
}

/** Who holds how much of a GPU. */
export function gpuBar(gpu) {
  const held = gpu.held.reduce((sum, holder) => sum + (holder.bytes ?? 0), 0);
  const other = Math.max(0, (gpu.memory_used ?? 0) - held);
  return bar([...gpu.held.map((holder) => [holder.bytes ?? 0, shade(holder), `${name(holder)}: ${bytes(holder.bytes)}, ${holder.status}`]), [other, "other", `others: ${bytes(other)}`]], gpu.memory_total,
    `GPU ${gpu.index}: ${bytes(held)} of ${bytes(gpu.memory_total)} held`);
}

/** What the colours mean. */
export function legend(gpu) {
  return el("div", { class: "legend" }, gpu.held.map((holder) => el("span", { class: shade(holder) }, data(name(holder), 40), holder.status === "offloaded" ? " (asleep)" : null)),
    el("span", { class: "other" }, "others"), el("span", {}, "free"));
}
