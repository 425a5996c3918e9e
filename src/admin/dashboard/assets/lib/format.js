// Figures for people.

import { now as gatewayNow } from "./clock.js";

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const NONE = "–";

export function count(value) {
  return value === null || value === undefined ? NONE : whole.format(value);
}

export function decimal(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  return Math.abs(value) >= 100 ? whole.format(value) : number.format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let size = Number(value);
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${number.format(size >= 100 ? Math.round(size) : Math.round(size * 10) / 10)} ${units[unit]}`;
}

/** A span of time in its two largest units: `3 h 12 min`. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const all = Math.max(0, Math.floor(seconds));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => all >= size);
  if (first < 0) return "0 s";
  const [size, name] = parts[first];
  const rest = parts[first + 1];
  const more = rest ? Math.floor((all % size) / rest[0]) : 0;
  return `${Math.floor(all / size)} ${name}${more ? ` ${more} ${rest[1]}` : ""}`;
}

/** Seconds as a latency: `12 ms`, `3.4 s`. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 1) return `${number.format(Math.round(seconds * 10000) / 10)} ms`;
  return `${number.format(Math.round(seconds * 100) / 100)} s`;
}

/** The zone of this place's clock at a moment, as `UTC+1`. */
export const zone = (at = new Date()) => zoneOf(-at.getTimezoneOffset());

/** The zone of a clock that is so many minutes ahead of UTC. */
export function zoneOf(minutes) {
  const hours = Math.floor(Math.abs(minutes) / 60);
  const rest = Math.abs(minutes) % 60;
  return `UTC${minutes === 0 ? "" : `${minutes < 0 ? "\u2212" : "+"}${hours}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`}`;
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Seconds since 1970 as date and time of this place, with its zone. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const at = new Date(seconds * 1000);
  return `${moment.format(at)} ${zone(at)}`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

const short = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit" });

/** Day and time of this place, for lists whose year and zone stand elsewhere. */
export const dayAndTime = (seconds) => short.format(new Date(seconds * 1000));

/** A span of time of this place; its day and its zone once where they are the same. */
export function between(since, until) {
  const [first, last] = [since, until].map((seconds) => new Date(seconds * 1000));
  const start = zone(first) === zone(last) ? moment.format(first) : time(since);
  return `${start} to ${first.toDateString() === last.toDateString() ? `${clock.format(last)} ${zone(last)}` : time(until)}`;
}

/** How long ago, or in how long, in the largest unit: the moment itself is a title. */
export function ago(seconds, now = gatewayNow()) {
  if (seconds === null || seconds === undefined) return NONE;
  const past = now - seconds;
  const size = [86400, 3600, 60, 1].find((unit) => Math.abs(past) >= unit) ?? 1;
  const rounded = span(Math.floor(Math.abs(past) / size) * size);
  if (past < 0) return `in ${rounded}`;
  return past < 5 ? "just now" : `${rounded} ago`;
}

/** A value with the unit of its series. */
export function measured(value, unit) {
  if (value === null || value === undefined) return NONE;
  if (unit === "bytes") return bytes(value);
  if (unit === "bytes/s") return `${bytes(value)}/s`;
  if (unit === "s") return latency(value);
  return `${decimal(value)} ${unit}`;
}
