// What fails or waits, by its harm: since when, why, what helps, and the way to do it.

import { data, el, status } from "./dom.js";
import { part } from "./api.js";
import { now as gatewayNow } from "./clock.js";
import { ago, span } from "./format.js";

/** More than that a page does not list; the rest is in the lists that it leads to. */
const SHOWN_MAX = 12;

/** What of `GET status` fails or waits, the most harmful first: `{ what, since, why, cure, buttons }`; `start` starts a model; `room` says by deployment what it waits for. */
export function problems(now, start, room) {
  const link = (href, words) => el("a", { class: "button tiny", href }, words);
  const told = { deployment: [], server: [], waiting: [] };
  for (const each of now.problems ?? []) told[each.kind]?.push(each);
  const model = (each) => el("a", { href: `/instances/${part(each.of)}` }, data(each.name, 80));
  return [
    ...told.deployment.map((each) => ({ mark: "failed", what: [model(each), " failed"], ...each, cure: "See to that, in its options or on the machine, then start it.",
      buttons: [el("button", { type: "button", class: "tiny", "aria-label": `Start ${each.name}`, on: { click: () => start(each) } }, "Start"), link(`/instances/${part(each.of)}?tab=console`, "Log"), link(`/launch?edit=${part(each.of)}`, "Edit")] })),
    ...told.server.map((each) => ({ mark: "failed", what: ["A server of the route ", el("a", { href: `/routes?routes.filter=${part(each.of)}` }, data(each.of, 60)), " fails: ", data(each.name, 120)], ...each, lasts: true,
      cure: "Start it, or take it out of the route. It is asked again by itself.", buttons: [link(`/routes?routes.filter=${part(each.of)}`, "Route")] })),
    ...(now.config_errors ?? []).map((each) => ({ mark: "failed", what: ["An error in ", data(`${each.file}${each.line ? `, line ${each.line}` : ""}`, 120)], why: each.message,
      cure: "What was read before stays in effect until it is mended.", buttons: [link("/routes#errors", "See where")] })),
    ...told.waiting.map((each) => ({ mark: "loading", what: [model(each), " has no room, and requests wait for it"], ...each, lasts: true, why: each.why ?? room.get(each.name), cure: "It goes on by itself. To hasten it, offload or stop what it waits for.",
      buttons: [link(`/instances/${part(each.of)}#why`, "Why"), link("/gpus", "GPUs")] })),
  ];
}

/** The list of them; `well` is said where there is none. */
export function problemList(all, well) {
  if (!all.length) return el("p", { class: "note good", id: "well" }, well);
  return el("section", { class: "card stack", id: "problems-here", "aria-label": "Problems" },
    el("h2", {}, all.length === 1 ? "One problem" : `${all.length} problems, the most harmful first`),
    el("ul", { class: "problems" }, all.slice(0, SHOWN_MAX).map((each) => el("li", {}, status(each.mark, false, true),
      el("div", { class: "stack" }, el("div", {}, el("strong", {}, each.what), each.since ? el("span", { class: "quiet" }, each.lasts ? `, for ${span(gatewayNow() - each.since)}` : ` ${ago(each.since)}`) : null),
        each.why && el("div", {}, data(each.why.split("\n")[0], 400)), each.cure && el("div", { class: "quiet small" }, each.cure)),
      el("div", { class: "actions" }, each.buttons)))),
    all.length > SHOWN_MAX && el("p", { class: "quiet" }, `and ${all.length - SHOWN_MAX} more: `, el("a", { href: "/?instances.status=failed" }, "instances"), ", ", el("a", { href: "/routes" }, "routes")));
}
