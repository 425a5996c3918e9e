// Who did something: tokens by their labels, where these may be seen.

import { data, el } from "./dom.js";
import { get, session } from "./api.js";

/** Labels of the newest tokens, by the names that the gateway gives their bearers; to an operator their own. */
export async function labels() {
  const found = new Map();
  try {
    const who = await session();
    if (who.label) found.set(who.subject, who.label);
    if (who.role !== "operator") for (const token of (await get("tokens")).tokens) if (token.label) found.set(`token:${token.jti}`, token.label);
  } catch {
    // What is not known stays an id.
  }
  return found;
}

/** A person or token by name; its id where it has no other, cut, and whole on hover. Of a one-time link, who made it. */
export function person(name, known, maker = null) {
  if (maker) return el("span", {}, name, " made by ", person(maker, known));
  const label = known.get(name);
  if (label) return el("span", { title: name }, data(label, 60));
  const id = String(name).match(/^token:([0-9A-Z]{26})$/)?.[1];
  return id ? el("span", { title: name }, "token …", el("code", {}, id.slice(-8))) : data(name, 60);
}
