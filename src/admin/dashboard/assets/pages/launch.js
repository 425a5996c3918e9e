// The launch form: a route file made by hand, checked while it is written.

import { confirm, download, el, field, id, readFile, show, toast } from "../lib/dom.js";
import { get, keepWhile, part, post, put } from "../lib/api.js";
import { commandBlock } from "../lib/configuration.js";
import { check, existing, FILE_BYTES_MAX, fresh, imported, renamed, takenNames } from "../lib/draft.js";
import { finder } from "../lib/find.js";
import { group } from "../lib/group.js";
import { idleFields, instanceFields, modelFields, routeFields, entry, text as textInput } from "../lib/place_form.js";
import { merged, reviewed } from "../lib/review.js";
import { mayStand, OF_MODEL, optionGroups } from "../lib/schema.js";
import { pruned, sorted, text } from "../lib/values.js";

export default async function launch(main) {
  const query = new URLSearchParams(location.search);
  const edit = query.get("edit");
  document.title = `${edit ? `Edit ${edit}` : "Launch New"} – Tidegate`;
  const [taken, routes, queues] = await Promise.all([takenNames(), get("routes"), get("queues").catch(() => [])]);
  const known = new Set(["local", ...queues.map((queue) => queue.name ?? queue), ...taken.instances.map((each) => each.queue)]);
  let draft = fresh();
  let base = { revision: null, file: null, config: null };
  if (edit) {
    const found = await existing(edit);
    draft = found.draft;
    base = found;
  } else if (query.get("clone")) {
    draft = renamed((await existing(query.get("clone"))).draft, taken.names, taken.endpoints);
  }
  let options = [];
  let parts = { entries: [], groups: [] };
  let timer = 0;
  let latest = 0;
  let changed = false;

  const form = el("div", { class: "stack", id: "launch-form" });
  const problems = el("div", { id: "problems", "aria-live": "polite" });
  const preview = el("div", { class: "stack", id: "preview" });
  const start = el("input", { type: "checkbox", checked: true, id: "start-at-once" });
  /** On a phone what is wrong stands far from the button. */
  const wrongs = el("button", { type: "button", class: "tiny plain", hidden: true, on: { click: () => problems.querySelector("button")?.click() } });
  const go = el("button", { type: "button", class: "primary", id: "launch", on: { click: submit } }, "Review");
  const find = finder("Find an option", fields);
  const file = el("input", { type: "file", accept: ".json,.toml,application/json", id: "import-file", on: { change: importFile } });
  const from = el("select", { on: { change: cloneFrom } }, el("option", { value: "" }, taken.instances.length ? "Choose one…" : "There is none yet"), taken.instances.map((each) => el("option", {}, each.name)));

  show(main,
    el("div", { class: "head" }, el("h1", {}, edit ? `Edit ${edit}` : "Launch New")),
    el("div", { class: "launch" },
      el("div", { class: "stack" },
        edit ? null : el("section", { class: "card stack" }, el("h2", {}, "Start from"), el("div", { class: "fields" },
          field("Import Configuration", file, "An exported JSON file, or a route file in TOML or JSON. It fills the form."),
          field("Clone an instance", from, "Its configuration fills the form, with names that are free."))),
        find, form),
      el("aside", { class: "card stack", "aria-label": "Check and launch" },
        el("h2", {}, "Check"), problems,
        el("div", { class: "actions go" }, go, el("button", { type: "button", on: { click: exportDraft } }, "Export as JSON"), wrongs),
        edit ? null : el("label", { class: "check", for: "start-at-once" }, start, "Start it at once"),
        el("h2", {}, "Command line"), preview)));

  // Every change of any control is a change of the draft.
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  addEventListener("beforeunload", (event) => changed && event.preventDefault());
  keepWhile(() => changed);
  await build();
  check_();

  /** Draws the whole form from the draft. */
  async function build() {
    const version = draft.instance.vllm_version;
    try {
      options = (await get("options", { vllm_version: version })).options;
    } catch (error) {
      if (!options.length) options = (await get("options")).options;
      toast(error.message, "bad");
    }
    draw();
  }

  /** Draws the form anew; the focus stays where it was. */
  function draw() {
    const back = place(document.activeElement);
    const open = new Set([...form.querySelectorAll("details[open]")].map(path));
    redraw();
    for (const fold of form.querySelectorAll("details")) if (open.has(path(fold))) fold.open = true;
    back?.()?.focus();
  }

  /** What tells one fold of the form from the others, also after it was made anew. */
  function path(fold) {
    const words = [fold.closest("fieldset")?.dataset.model ?? "all"];
    for (let each = fold; each && form.contains(each); each = each.parentElement.closest("details")) words.push(each.firstElementChild.firstChild.textContent);
    return words.join("/");
  }

  /** A way to find a control of the form again after it was made anew. */
  function place(node) {
    if (!form.contains(node)) return null;
    const model = node.closest("fieldset")?.dataset.model;
    const key = node.closest("[data-key]")?.dataset.key;
    const inside = () => (model === undefined ? form : form.querySelector(`fieldset[data-model="${model}"]`) ?? form);
    if (key) return () => inside().querySelector(`[data-key="${CSS.escape(key)}"] :is(input, select, textarea)`);
    const words = node.textContent;
    return () => [...inside().querySelectorAll(node.tagName)].find((each) => each.textContent === words);
  }

  function redraw() {
    const sim = draft.instance.engine === "sim";
    const groups = optionGroups(options);
    const places = { instance: instanceFields(draft, { instances: taken.instances, queues: [...known], locked: Boolean(edit), engineChanged: () => { draw(); } }), route: routeFields(draft, routes), idle: idleFields(draft) };
    parts = { entries: [...places.instance.entries, ...places.idle.entries], route: places.route, groups: [], models: [] };
    const models = draft.deployment.map((table, index) => model(table, index, groups, sim));
    const common = groups.filter(({ title }) => !OF_MODEL.includes(title)).map(({ title, list }) =>
      optionGroup(title, list.filter((option) => mayStand(option, "instance")), draft.instance, -1, "instance.options"));
    const lifted = groups.filter(({ title }) => OF_MODEL.includes(title)).map(({ title, list }) =>
      optionGroup(`${title}, for all models`, list.filter((option) => mayStand(option, "instance")), draft.instance, -1, "instance.options", true));
    show(form,
      el("section", { class: "card stack" }, el("h2", {}, "Instance"), places.instance.node, places.route.node),
      sim ? null : el("section", { class: "card" }, el("h2", {}, "vLLM Version"), version()),
      models,
      el("div", { class: "actions" }, el("button", { type: "button", on: { click: () => { draft.deployment.push({ model: "", options: {} }); draw(); soon(); form.querySelectorAll("fieldset")[draft.deployment.length - 1]?.querySelector("input")?.focus(); } } }, "Add a model")),
      el("section", { class: "card" }, el("h2", {}, "For the whole instance"),
        sim ? el("p", { class: "quiet" }, "Of these, the stand-in follows the two offloading options in Advanced; it takes the others, and they change nothing.") : null,
        common.map((each) => each.node),
        el("details", { class: "group" }, el("summary", {}, "Defaults for all models"), el("p", { class: "quiet" }, "What a model sets itself wins over these."), lifted.map((each) => each.node))),
      el("section", { class: "card" }, el("h2", {}, "Idle options"), places.idle.node));
  }

  function optionGroup(title, list, table, owner, key, three = false) {
    table.options ??= {};
    const made = group({ title, options: list, three, key: (option) => `${key}.${option.name}`, place: {
      get: (name) => table.options[name],
      set: (name, value) => { if (value === undefined) delete table.options[name]; else table.options[name] = value; },
    } });
    parts.groups.push({ ...made, owner });
    return made;
  }

  function model(table, index, groups, sim) {
    const fields = modelFields(table, { engine: draft.instance.engine });
    parts.models.push(fields.entries);
    const own = groups.filter(({ title }) => OF_MODEL.includes(title)).map(({ title, list }) =>
      optionGroup(title, list.filter((option) => mayStand(option, "deployment")), table, index, "deployment.options"));
    const overrides = groups.filter(({ title }) => !OF_MODEL.includes(title)).map(({ title, list }) =>
      optionGroup(`${title}, for this model alone`, list.filter((option) => mayStand(option, "deployment")), table, index, "deployment.options", true));
    const fold = el("details", { class: "group" }, el("summary", {}, "Other options for this model alone"), el("p", { class: "quiet" }, "They win over those of the whole instance."), overrides.map((each) => each.node));
    return el("fieldset", { class: "card model", id: id("model"), data: { model: String(index) } },
      el("legend", {}, draft.deployment.length > 1 ? `Model ${index + 1}` : "Model"),
      fields.node,
      sim ? el("details", { class: "group" }, el("summary", {}, "vLLM's options"), own.map((each) => each.node), fold) : [own.map((each) => each.node), fold],
      draft.deployment.length > 1 ? el("div", { class: "actions" }, el("button", { type: "button", class: "danger", on: { click: () => { draft.deployment.splice(index, 1); draw(); soon(); } } }, `Remove model ${index + 1}`)) : null);
  }

  function version() {
    const versions = ["0.32.0", "0.15.0", "0.11.0", "0.9.2", "0.7.2"];
    const list = el("datalist", { id: id("versions") }, versions.map((value) => el("option", { value })));
    const control = textInput(draft.instance, "vllm_version", { list: list.id, placeholder: "the vllm on PATH", "aria-label": "vLLM Version" });
    control.addEventListener("change", () => build().then(check_));
    const made = entry("vLLM Version", control, "It is installed into an environment of its own if it is not there yet. Options that it does not have are folded away, with the reason.", "instance.vllm_version");
    parts.entries.push(made);
    return el("div", { class: "fields" }, made.node, list);
  }

  function soon() {
    changed = true;
    clearTimeout(timer);
    timer = setTimeout(check_, 350);
  }

  /** Asks the gateway what it thinks of the draft, and shows it. */
  async function check_() {
    latest += 1;
    const number = latest;
    const sent = text(draft, base.config);
    let answer;
    try {
      answer = await check(sent.text, edit);
    } catch (error) {
      answer = { ok: false, errors: [{ key: "", message: error.message }], commands: [] };
    }
    if (number !== latest) return;
    const errors = answer.errors.map((error) => ({ ...error, owner: error.line ? sent.owner(error.line) : -1 }));
    // What is still empty is no mistake before anything was written.
    if (changed || edit || !errors.length) mark(errors);
    else show(problems, el("p", { class: "note" }, "Say which model, and what the instance is called. The rest is checked as you write."));
    show(preview, (answer.commands ?? []).map((each) => commandBlock(each)), (answer.commands ?? []).length ? null : el("p", { class: "quiet" }, "It is shown once nothing is wrong."));
    go.dataset.ok = String(errors.length === 0);
  }

  function mark(errors) {
    for (const each of allEntries()) each.error(null);
    const places = errors.map((error) => ({ error, place: locate(error) }));
    for (const { error, place } of places) place?.error?.(error.message);
    for (const made of parts.groups) {
      const mine = places.filter(({ place }) => place?.group === made).map(({ error, place }) => [place.option, error.message]);
      made.errors(new Map(mine));
    }
    wrongs.hidden = !errors.length;
    wrongs.textContent = errors.length === 1 ? "1 thing is wrong" : `${errors.length} things are wrong`;
    show(problems, errors.length ? el("div", { class: "note bad" }, el("strong", {}, errors.length === 1 ? "One thing is wrong:" : `${errors.length} things are wrong:`),
      el("ul", {}, places.slice(0, 50).map(({ error, place }) => el("li", {}, place
        ? el("button", { type: "button", class: "tiny plain", on: { click: () => place.reveal() } }, label(error, place)) : el("strong", {}, label(error)), " ", error.message))))
      : el("p", { class: "note good" }, "Everything fits."));
  }

  /** What the form calls the place of an error, or its key where the form has none. */
  const label = (error, place) => `${error.owner >= 0 && draft.deployment.length > 1 ? `Model ${error.owner + 1}: ` : ""}${place?.label ?? (error.key || "File")}`;
  const allEntries = () => [...parts.entries, ...parts.route.entries, ...parts.models.flat()];

  /** The control that an error is about. */
  function locate(error) {
    const name = error.key.match(/\.options\.([^.]+)/)?.[1];
    if (name) {
      const owner = error.key.startsWith("deployment") ? Math.max(0, error.owner) : -1;
      const held = parts.groups.filter((each) => each.owner === owner && each.holds(name));
      const found = held[0];
      return found && { group: found, option: name, label: found.options.find((option) => option.name === name).label, reveal: () => found.reveal(name) };
    }
    const key = error.key.replace(/^deployment\[?\d*\]?\./, "deployment.");
    const list = key.startsWith("deployment") ? parts.models[Math.max(0, error.owner)] ?? [] : allEntries();
    const found = list.find((each) => each.key === key);
    return found && { error: (message) => found.error(message), label: found.label, reveal: () => { found.input.scrollIntoView({ block: "nearest" }); found.input.focus(); } };
  }

  /** Every field of the form once: of an option the place where it is set for the first model, or for all. */
  function fields() {
    const own = allEntries().map((each) => ({ title: each.label, where: each.key, words: `${each.label} ${each.key}`, reveal: () => each.input.focus() }));
    const seen = new Set();
    const held = parts.groups.filter((made) => made.owner <= 0).flatMap((made) => made.options.map((option) => ({ made, option })));
    const wide = ({ made, option }) => Number(OF_MODEL.includes(option.group) === (made.owner === 0));
    held.sort((a, b) => wide(b) - wide(a));
    const options_ = held.filter(({ option }) => !seen.has(option.name) && seen.add(option.name)).map(({ made, option }) => ({
      title: option.label,
      where: [option.group, option.available ? option.default && `default ${option.default}` : "not in this version", option.owner === "vllm" && option.becomes].filter(Boolean).join(" · "),
      words: `${option.name} ${option.label} ${option.help} ${option.aliases?.join(" ") ?? ""} ${option.becomes}`,
      reveal: () => made.reveal(option.name),
    }));
    return [...own, ...options_];
  }

  async function importFile() {
    try {
      const read = await readFile(file, FILE_BYTES_MAX);
      if (!read) return;
      draft = await imported(read.text);
      await build();
      soon();
      toast(`${read.name} fills the form`);
    } catch (error) {
      toast(error.message, "bad");
    }
    file.value = "";
  }

  async function cloneFrom() {
    if (!from.value) return;
    if (changed && !(await confirm("Fill the form anew?", { details: el("p", {}, "What you wrote is lost."), action: "Fill it" }))) return;
    try {
      draft = renamed((await existing(from.value)).draft, taken.names, new Set(taken.endpoints));
      await build();
      soon();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  function exportDraft() {
    const shown = structuredClone(pruned(draft));
    for (const table of [shown.instance, ...(shown.deployment ?? [])]) {
      for (const option of options) {
        const value = table?.options?.[option.name];
        if (option.kind === "secret" && typeof value === "string") table.options[option.name] = { secret: option.name };
      }
    }
    const name = draft.instance.name || "instance";
    download(`${name}.json`, `${JSON.stringify(sorted({ ...shown, tidegate: { export: 1 } }), null, 2)}\n`, "application/json");
  }

  async function submit() {
    go.disabled = true;
    changed = true;
    try {
      await check_();
      if (go.dataset.ok !== "true") {
        problems.querySelector("button")?.focus();
        return;
      }
      const mine = JSON.parse(text(draft, base.config).text);
      let body = mine;
      const here = `instances/${part(edit ?? "")}`;
      const made = edit
        ? await reviewed(`Review the change of ${edit}`, (query, headers) => put(here, body, headers, query), { revision: base.revision, theirs })
        : await reviewed(`Review ${draft.instance.name}`, (query) => post("instances", body, query), { apply: "Launch" });
      if (!made) return;
      if (made.unchanged) toast(edit ? "Nothing was changed" : `${made.instance} is there already, just so`);

      async function theirs() {
        const found = await existing(edit);
        // The file as it was: what it takes to come back to it from theirs.
        const back = await put(here, base.config, {}, { dry_run: 1 });
        body = merged(base.config, mine, found.config);
        return { revision: found.revision, began: back.review?.after, now: back.review?.before };
      }
      if (!edit && start.checked) await post(`instances/${part(draft.instance.name)}/start`).catch((error) => toast(error.message, "bad"));
      changed = false;
      location.assign(`/instances/${part(draft.instance.name)}`);
    } catch (error) {
      toast(error.message, "bad");
    } finally {
      go.disabled = false;
    }
  }
}
