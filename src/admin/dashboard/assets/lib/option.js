// One option of the options table as a labelled control.

import { data, el, id, prose, show } from "./dom.js";
import { fromText, LONG, toText } from "./values.js";

/**
 * A control for `option`. `read()` is its value, `write(value)` changes it (undefined:
 * unset). `three` shows a switch with the choice "off", for a place that overrides another.
 */
export function optionField(option, { read, write, three = false, readonly = false, key = option.key }) {
  const name = id(`option-${option.name}`);
  const control = make(option, { name, read, write: (value) => { write(value); mark(); }, three, readonly });
  const wrong = el("span", { class: "error-text", id: `${name}-wrong`, hidden: true });
  const help = el("span", { class: "help", id: `${name}-help` }, prose(option.help),
    option.default ? ` Default: ${option.default}.` : null,
    option.min !== undefined && option.max !== undefined ? ` From ${option.min} to ${option.max}.` : null,
    option.becomes && option.owner === "vllm" ? [" ", el("code", {}, option.becomes)] : null);
  control.input.setAttribute("aria-describedby", `${name}-help ${name}-wrong`);
  const title = [option.label, option.unit && ` (${option.unit})`].filter(Boolean).join("");
  const caption = control.check
    ? el("label", { class: "check", for: name }, control.input, title)
    : el("label", { for: name }, title);
  const node = el("div", { class: `option${LONG.has(option.kind) ? " wide" : ""}`, data: { option: option.name, key } },
    caption, control.check ? null : control.node ?? control.input, wrong, help);
  function mark() {
    node.classList.toggle("set", read() !== undefined && read() !== null);
  }
  mark();
  return {
    node,
    input: control.input,
    option,
    error(message) {
      show(wrong, message ?? "");
      wrong.hidden = !message;
      node.classList.toggle("wrong", Boolean(message));
      if (message) control.input.setAttribute("aria-invalid", "true");
      else control.input.removeAttribute("aria-invalid");
    },
  };
}

function make(option, { name, read, write, three, readonly }) {
  const { kind } = option;
  const value = read();
  const disabled = readonly;
  if (kind === "switch" && !three) {
    const input = el("input", { type: "checkbox", id: name, checked: value === true, disabled, on: { change: () => write(input.checked ? true : undefined) } });
    return { input, check: true };
  }
  if (kind === "switch" || kind === "tri-state") {
    const input = el("select", { id: name, disabled, on: { change: () => write(fromText(kind, input.value)) } },
      el("option", { value: "" }, three ? "not set here" : "unset: vLLM decides"), el("option", { value: "true" }, "on"), el("option", { value: "false" }, "off"));
    input.value = value === undefined || value === null ? "" : String(value);
    return { input };
  }
  if (kind === "choice") {
    const strange = value !== undefined && value !== null && !option.choices.includes(value) ? [String(value)] : [];
    const input = el("select", { id: name, disabled, on: { change: () => write(input.value || undefined) } },
      el("option", { value: "" }, option.default ? `unset: ${option.default}` : "unset"), [...option.choices, ...strange].map((choice) => el("option", { value: choice }, choice)));
    input.value = value ?? "";
    return { input };
  }
  if (kind === "secret") return secret(name, value, write, disabled);
  const shared = { id: name, disabled, spellcheck: "false", autocomplete: "off", placeholder: hint(option) };
  if (LONG.has(kind)) {
    const input = el("textarea", { ...shared, rows: 3, value: toText(kind, value), on: { input: () => write(fromText(kind, input.value)) } });
    return { input };
  }
  const list = option.choices?.length ? el("datalist", { id: `${name}-list` }, option.choices.map((choice) => el("option", { value: choice }))) : null;
  const numeric = kind === "integer" || kind === "number";
  const input = el("input", { ...shared, type: "text", inputmode: numeric ? "decimal" : null, list: list?.id, value: toText(kind, value),
    on: { input: () => write(fromText(kind, input.value)) } });
  return { input, node: el("div", { class: "field" }, input, list) };
}

/** What holds where nothing is written; else what could be. */
function hint(option) {
  if (option.default) return `${option.default}`.slice(0, 80);
  return option.example === null || option.example === undefined ? null : `e.g. ${toText(option.kind, option.example)}`.slice(0, 80);
}

/** Where a secret is: in the environment, in a file, in the store; or the secret itself. */
function secret(name, value, write, disabled) {
  const sources = [["env", "Environment variable"], ["file", "File"], ["secret", "Stored secret"], ["typed", "Typed here"]];
  const [source, first] = value && typeof value === "object" ? Object.entries(value)[0] : value ? ["typed", value] : ["env", ""];
  const where = el("select", { disabled, "aria-label": "Where the secret is", on: { change } }, sources.map(([word, title]) => el("option", { value: word }, title)));
  where.value = source;
  const input = el("input", { id: name, type: source === "typed" ? "password" : "text", value: first, disabled, autocomplete: "off", spellcheck: "false",
    placeholder: "HF_TOKEN", on: { input: change } });
  function change() {
    input.type = where.value === "typed" ? "password" : "text";
    input.placeholder = { env: "HF_TOKEN", file: "/run/secrets/hf", secret: "NAME", typed: "hf_…" }[where.value];
    const typed = input.value.trim();
    write(typed === "" ? undefined : where.value === "typed" ? typed : { [where.value]: typed });
  }
  return { input, node: el("div", { class: "field" }, where, input) };
}

/** An option that a version does not have: why, and how to take its value out. */
export function goneOption(option, { read, write }) {
  const node = el("li", { data: { option: option.name } });
  const draw = () => {
    const value = read();
    show(node, el("strong", {}, option.label), el("span", { class: "quiet" }, `: ${option.becomes}`),
      value === undefined || value === null ? null : [el("span", { class: "error-text" }, " set to ", data(toText(option.kind, value), 80), " "),
        el("button", { type: "button", class: "tiny", on: { click: () => { write(undefined); draw(); } } }, `Take out ${option.label}`)]);
  };
  draw();
  return node;
}
