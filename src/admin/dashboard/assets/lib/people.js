// Who did something: tokens by their labels, where these may be seen.

import { data, el } from "./dom.js";
import { get } from "./api.js";

/** Labels of the newest tokens, by the names that the gateway gives their bearers. */
export async function labels() {
  const found = new Map();
  try {
    for (const token of (await get("tokens")).tokens) if (token.label) found.set(`token:${token.jti}`, token.label);
  } catch {
    // Only admins see tokens: for others the ids stay.
  }
  return found;
}

/** A person or token by name; its id where it has no other, cut, and whole on hover. */
export function person(name, known) {
  const label = known.get(name);
  if (label) return el("span", { title: name }, data(label, 60));
  const id = String(name).match(/^token:([0-9A-Z]{26})$/)?.[1];
  return id ? el("span", { title: name }, "token …", el("code", {}, id.slice(-8))) : data(name, 60);
}
