// Values of options between the form and a route file's JSON. What can't be read stays
// the text that was typed: the gateway then says what is wrong with it, and nothing is lost.

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** A number if it is one, else the text. */
function number(text) {
  const value = Number(text);
  return text.trim() !== "" && Number.isFinite(value) ? value : text;
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What a text of the form means for an option; undefined for unset. */
export function fromText(kind, text) {
  const typed = text.trim();
  if (typed === "") return undefined;
  switch (kind) {
    case "integer":
    case "number":
      return number(typed);
    case "tokens":
    case "gibibytes":
      return number(typed);
    case "json":
      return json(typed);
    case "list":
      return typed.startsWith("[") ? json(typed) : lines(text);
    case "adapters":
      return /^[[{]/.test(typed) ? json(typed) : lines(text);
    case "numbers":
      return typed.startsWith("[") ? json(typed) : typed.split(",").map((each) => number(each.trim()));
    case "counts":
      return typed.startsWith("{") ? json(typed) : typed;
    case "switch":
    case "tri-state":
      return typed === "true" ? true : typed === "false" ? false : typed;
    default:
      return typed;
  }
}

/** An option's value as the form shows it. */
export function toText(kind, value) {
  if (value === undefined || value === null) return "";
  if (kind === "json") return typeof value === "string" ? value : JSON.stringify(value, null, 2);
  if (Array.isArray(value)) {
    if (value.every((each) => typeof each === "string") && (kind === "list" || kind === "adapters")) return value.join("\n");
    if (kind === "numbers" && value.every((each) => typeof each === "number")) return value.join(", ");
    return JSON.stringify(value, null, 2);
  }
  if (typeof value === "object") {
    const pairs = Object.entries(value);
    if (kind === "counts" && pairs.every(([, each]) => typeof each === "number")) return pairs.map(([name, each]) => `${name}=${each}`).join(",");
    if (kind === "adapters" && pairs.every(([, each]) => typeof each === "string")) return pairs.map(([name, each]) => `${name}=${each}`).join("\n");
    return JSON.stringify(value, null, 2);
  }
  return String(value);
}

/** Kinds that need room. */
export const LONG = new Set(["json", "list", "adapters", "command-line"]);

/** A span of time: a number alone is in `unit`. */
export function duration(text, unit) {
  const typed = text.trim();
  if (typed === "") return undefined;
  if (/^\d+$/.test(typed)) return `${typed}${unit}`;
  // "1.5" hours are 90 minutes.
  if (/^\d*\.\d+$/.test(typed)) return unit === "h" ? `${Math.round(Number(typed) * 3600)}s` : `${Math.round(Number(typed) * 1000)}ms`;
  return typed;
}

/** Keys in the order in which the gateway writes them, so that its line numbers fit. */
export function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

/** Without what is unset and tables that hold nothing, unless `was` has them too; rows of a list stay. */
export function pruned(value, was = null) {
  if (Array.isArray(value)) return value.map((each, index) => pruned(each, was?.[index]));
  if (value === null || typeof value !== "object") return value;
  const kept = Object.entries(value).filter(([, each]) => each !== undefined && each !== null && each !== "")
    .map(([key, each]) => [key, key === "options" ? each : pruned(each, was?.[key])])
    .filter(([key, each]) => typeof each !== "object" || Array.isArray(each) || Object.keys(each).length || typeof (was?.[key] ?? "") === "object");
  return Object.fromEntries(kept);
}

/** The text that is sent instead of what `was`, and which deployment each line of it belongs to. */
export function text(document, was = null) {
  const all = JSON.stringify(sorted(pruned(document, was)), null, 2);
  const owners = [];
  let index = -1;
  let inside = false;
  all.split("\n").forEach((line) => {
    if (line.startsWith('  "deployment": [')) inside = true;
    else if (inside && /^ {4}[{]/.test(line)) index += 1;
    else if (inside && line.startsWith("  ]")) {
      inside = false;
      index = -1;
    }
    owners.push(inside ? index : -1);
  });
  return { text: `${all}\n`, owner: (line) => owners[line - 1] ?? -1 };
}
