// The options table, as the form groups it.

/** Groups that describe one model; the others hold for the whole instance. */
export const OF_MODEL = ["Model Configuration", "Speculative Decoding"];

/** `[{ title, list }]` of what stands in options tables, in the order of the form. */
export function optionGroups(options) {
  const groups = new Map();
  for (const option of options) {
    if (!/\.options\./.test(option.key)) continue;
    if (!groups.has(option.group)) groups.set(option.group, []);
    groups.get(option.group).push(option);
  }
  return [...groups].map(([title, list]) => ({ title, list }));
}

/** Whether an option may stand in `[instance.options]` or `[deployment.options]`. */
export function mayStand(option, where) {
  return option.scope === undefined || option.scope === "both" || option.scope === where;
}
