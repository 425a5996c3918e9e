// The route file that the launch form makes: a plain object, and where it comes from.

import { call, get, part } from "./api.js";

/** A route file may not be larger. */
export const FILE_BYTES_MAX = 1 << 20;

export function fresh() {
  return { instance: { name: "", engine: "vllm", idle: {}, options: {} }, deployment: [{ model: "", options: {} }] };
}

/** A file's tables without the header of an export, and with every table the form writes to. */
export function shaped(config) {
  const { tidegate: _, ...tables } = structuredClone(config);
  tables.instance ??= {};
  tables.instance.idle ??= {};
  tables.instance.options ??= {};
  tables.deployment = (tables.deployment ?? []).map((table) => ({ ...table, options: table.options ?? {} }));
  if (!tables.deployment.length) tables.deployment = [{ model: "", options: {} }];
  return tables;
}

/** A copy with names that are not taken: its own, and those of its models where clients could not tell them apart. */
export function renamed(draft, taken, endpoints) {
  const copy = structuredClone(draft);
  const free = (name, used) => {
    const base = name.replace(/-\d+$/, "");
    for (let number = 2; ; number += 1) if (!used.has(`${base}-${number}`)) return `${base}-${number}`;
  };
  const old = copy.instance.name;
  copy.instance.name = free(old, taken);
  if (copy.route) {
    if (copy.route.name === old) copy.route.name = copy.instance.name;
    if (copy.route.path === `/${old}`) copy.route.path = `/${copy.instance.name}`;
    if (copy.instance.route === old) copy.instance.route = copy.instance.name;
    delete copy.route.models;
  }
  for (const table of copy.deployment) {
    const name = table.endpoint_name ?? table.model;
    if (endpoints.has(name)) {
      table.endpoint_name = free(name, endpoints);
      endpoints.add(table.endpoint_name);
    }
  }
  return copy;
}

/** The configuration of an instance that is there. */
export async function existing(name) {
  const { answer, headers } = await call("GET", `instances/${part(name)}`, { whole: true });
  return { draft: shaped(answer.config), config: answer.config, revision: answer.revision ?? headers.get("etag")?.replaceAll('"', "") ?? null, file: answer.file };
}

/** A text that a person gave, JSON or TOML, as a draft. Only the gateway reads TOML. */
export async function imported(text) {
  if (text.trimStart().startsWith("{")) {
    let parsed;
    try {
      parsed = JSON.parse(text);
    } catch (error) {
      throw new Error(`The file is not JSON: ${error.message}`);
    }
    if (!parsed.instance) throw new Error("There is no [instance] in the file.");
    return shaped(parsed);
  }
  const answer = await check(text);
  if (!answer.config) throw new Error(answer.errors.map((error) => `${error.line ? `Line ${error.line}: ` : ""}${error.key ? `${error.key}: ` : ""}${error.message}`).join("\n"));
  return shaped(answer.config);
}

/** Tries a file without taking it in: `{ ok, errors, config, commands }`. */
export function check(text, replaces = null) {
  return call("POST", "drafts", { body: text, type: "text/plain", query: { replaces } });
}

/** Names that are taken. */
export async function takenNames() {
  const instances = await get("instances");
  return { names: new Set(instances.map((each) => each.name)), endpoints: new Set(instances.flatMap((each) => each.deployments.map((one) => one.endpoint))), instances };
}
