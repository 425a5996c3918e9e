// Why a model runs or does not, and whom a start would move out, in sentences.

import { data, el, prose } from "./dom.js";
import { get, part } from "./api.js";

/** What `explain` says of an instance, or of one of its models. */
export async function explained(instance, deployment = null) {
  const all = await get(`instances/${part(instance)}/explain`);
  return deployment ? all.filter((each) => each.deployment === `${instance}/${deployment}`) : all;
}

const sentence = (words) => `${words[0]?.toUpperCase() ?? ""}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;

const page = (deployment) => (deployment.includes("/") ? el("a", { href: `/instances/${part(deployment.split("/")[0])}` }, data(deployment, 80)) : data(deployment, 80));

/** Who would leave, how, and what that costs. */
export function leavers(all) {
  const evicts = all.flatMap((each) => each.evicts);
  return evicts.length ? el("ul", {}, evicts.map((each) => el("li", {}, page(each.deployment), ` ${each.how}: `, data(each.words, 300)))) : null;
}

/** All that is known of why, a paragraph a model. */
export function paragraphs(all) {
  return all.map((each) => el("div", { class: "stack" }, all.length > 1 && el("h3", {}, data(each.deployment, 80)),
    el("p", {}, each.lines.slice(0, 1).map((line) => prose(sentence(line)))),
    el("ul", { class: "quiet" }, each.lines.slice(1).filter((line) => !each.evicts.some(({ deployment }) => line.startsWith(deployment))).map((line) => el("li", {}, prose(sentence(line))))),
    each.evicts.length ? el("div", {}, el("strong", {}, "For a request now would leave:"), leavers([each])) : null));
}
