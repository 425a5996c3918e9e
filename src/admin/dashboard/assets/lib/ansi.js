// What programs write to a terminal, as lines of pieces with classes.

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
// SGR, any other control sequence, an operating system command, any other escape.
// eslint-disable-next-line no-control-regex
const ESCAPE = /\u001b\[([0-9;:]*)m|\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]?/g;

/** Without escapes, and of a line that was written over only what is seen at the end. */
export function plain(line) {
  return last(line).replace(ESCAPE, "");
}

function last(line) {
  const parts = String(line).replace(/[\r\n]+$/, "").split("\r");
  return parts.findLast((part) => part.trim() !== "") ?? "";
}

function fresh() {
  return { color: null, bold: false, dim: false, italic: false, underline: false, background: false };
}

/** The name that is nearest to a colour of 24 bits, so that it is readable in both themes. */
function nearest(red, green, blue) {
  const most = Math.max(red, green, blue);
  const least = Math.min(red, green, blue);
  if (most - least < 40) return most < 90 ? "black" : "white";
  const on = (value) => Number(value > (most + least) / 2);
  return NAMES[on(red) + 2 * on(green) + 4 * on(blue)];
}

function indexed(number) {
  if (number < 16) return NAMES[number % 8];
  if (number > 231) return number < 244 ? "black" : "white";
  const cube = number - 16;
  const level = (step) => (step === 0 ? 0 : 55 + step * 40);
  return nearest(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function apply(style, codes) {
  const queue = codes.split(/[;:]/).map(Number);
  while (queue.length) {
    const code = queue.shift();
    if (code === 0) Object.assign(style, fresh());
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 22) style.bold = style.dim = false;
    else if (code === 23) style.italic = false;
    else if (code === 24) style.underline = false;
    else if (code >= 30 && code <= 37) style.color = NAMES[code - 30];
    else if (code >= 90 && code <= 97) style.color = NAMES[code - 90];
    else if (code === 39) style.color = null;
    else if (code === 49) style.background = false;
    else if ((code >= 40 && code <= 47) || (code >= 100 && code <= 107)) style.background = true;
    else if (code === 38 || code === 48) {
      const kind = queue.shift();
      const name = kind === 5 ? indexed(queue.shift() ?? 7) : kind === 2 ? nearest(...queue.splice(0, 3)) : null;
      if (code === 38) style.color = name;
      else style.background = true;
    }
  }
}

function classes(style) {
  return [style.color && `a-${style.color}`, style.bold && "a-bold", style.dim && "a-dim", style.italic && "a-italic",
    style.underline && "a-underline", style.background && "a-bg"].filter(Boolean).join(" ");
}

/** `[{ text, className }]` of one line. Colours do not go over to the next line. */
export function pieces(line) {
  const text = last(line);
  const style = fresh();
  const found = [];
  let from = 0;
  const push = (until) => {
    if (until > from) found.push({ text: text.slice(from, until), className: classes(style) });
  };
  for (const match of text.matchAll(ESCAPE)) {
    push(match.index);
    if (match[1] !== undefined) apply(style, match[1] || "0");
    from = match.index + match[0].length;
  }
  push(text.length);
  return found;
}

/**
 * What a line is progress of: two with the same key show the same bar, and the later
 * one takes the place of the earlier. Null for any other line.
 */
export function progressKey(line) {
  const text = plain(line);
  const bar = text.match(/^(.*?)\d{1,3}(?:\.\d+)?\s?%/);
  if (!bar || !/[|█▏▎▍▌▋▊▉#=>]|it\/s|s\/it|\d+\/\d+|B\/s|ETA|Completed|loading/i.test(text)) return null;
  return bar[1].replace(/\d+/g, "0");
}
