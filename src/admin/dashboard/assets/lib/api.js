// The admin API: one way to call it, one kind of error.

import { heard } from "./clock.js";

const BASE = "/api/v1/";
const TIMEOUT_MS = 30000;

export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** What changes something carries this; a page learns it from `GET session`. */
let csrf = null;

/** Who uses this page; asked once. */
let known = null;
export function session() {
  known ??= call("GET", "session").then((found) => {
    csrf = found.csrf;
    const ended = document.getElementById("ended");
    if (ended) ended.hidden = true;
    return found;
  });
  return known;
}

/** Whether something was written here that a login in this tab would lose. */
let written = () => false;
export function keepWhile(test) {
  written = test;
}

/** Where to go back to after the login; a page with something written stays, and the login opens beside it. */
function login() {
  if (location.pathname === "/login") return;
  if (written() || document.querySelector("dialog[open] form")) {
    [known, csrf] = [null, null];
    document.getElementById("ended").hidden = false;
    return;
  }
  const back = location.pathname + location.search + location.hash;
  location.assign(`/login?next=${encodeURIComponent(back)}`);
}

/**
 * Calls the API. `body` is sent as JSON, a string as it is. Query values that are
 * null are left out.
 */
export async function call(method, path, { query = {}, body = undefined, type = null, headers = {}, whole = false } = {}) {
  const address = new URL(BASE + path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") address.searchParams.set(name, value);
  }
  // After a login in another tab.
  if (!csrf && method !== "GET" && path !== "session") await session();
  const sent = { accept: "application/json", ...headers };
  if (csrf && method !== "GET") sent["x-csrf-token"] = csrf;
  if (body !== undefined) sent["content-type"] = type ?? "application/json";
  let [response, text] = [null, ""];
  try {
    response = await fetch(address, {
      method,
      headers: sent,
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
    });
    // It may end in the middle, with the gateway or with the page.
    text = await response.text();
  } catch (error) {
    throw new ApiError(0, error.name === "TimeoutError" ? "no answer within 30 s" : "the gateway can't be reached", null);
  }
  heard(response.headers.get("date"));
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, "the answer is not JSON", null);
  }
  if (!response.ok && response.status !== 304) {
    if (response.status === 401) login();
    throw new ApiError(response.status, answer?.error?.message ?? `status ${response.status}`, answer);
  }
  return whole ? { answer, headers: response.headers, status: response.status } : answer;
}

export const get = (path, query) => call("GET", path, { query });
export const post = (path, body, query) => call("POST", path, { body, query });
export const put = (path, body, headers, query) => call("PUT", path, { body, headers, query });
export const remove = (path, headers) => call("DELETE", path, { headers });

/** Answers as they came last, by path: a tag, the rows, and when each came. */
const answers = new Map();

/** What goes up by a second each second and is not told anew. */
const COUNTED_ON = new Set(["idle_seconds", "now", "uptime_seconds"]);

function countedOn(value, seconds) {
  if (Array.isArray(value)) return value.map((each) => countedOn(each, seconds));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, typeof each === "number" && COUNTED_ON.has(key) ? each + seconds : countedOn(each, seconds)]));
}

/** As `get`, for what is asked again and again: only what is new is sent. */
export async function news(path) {
  const before = answers.get(path);
  const headers = { "a-im": "tidegate-rows", ...(before && { "if-none-match": before.tag }) };
  const { answer, headers: told, status } = await call("GET", path, { headers, whole: true });
  const now = Date.now();
  const row = (value) => ({ value, at: now });
  let kept = before;
  if (status !== 304) {
    kept = { tag: told.get("etag"), list: Array.isArray(answer) || status === 226 };
    if (status === 226) {
      kept.rows = before.rows.slice(0, answer.of);
      for (const [place, value] of answer.rows) kept.rows[place] = row(value);
    } else kept.rows = (kept.list ? answer : [answer]).map(row);
    if (kept.tag) answers.set(path, kept);
    else answers.delete(path);
  }
  const shown = kept.rows.map(({ value, at }) => (at === now ? value : countedOn(value, Math.round((now - at) / 1000))));
  return kept.list ? shown : shown[0];
}

/** One part of a path. */
export const part = encodeURIComponent;

/**
 * Calls `work` now and then every `seconds` while the page is seen. `work` is not
 * called again before it is done. Returns a way to call it at once.
 */
export function live(work, seconds) {
  let timer = null;
  let running = false;
  let again = false;
  const run = async () => {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await work();
      connection(true);
    } catch (error) {
      if (error instanceof ApiError && error.status !== 0) console.warn(error.message);
      if (!(error instanceof ApiError)) console.error(error);
      connection(!(error instanceof ApiError) || error.status !== 0);
    }
    running = false;
    if (again) {
      again = false;
      run();
    } else if (!document.hidden) {
      timer = setTimeout(run, seconds * 1000);
    }
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : run()));
  run();
  return run;
}

/** Tells when the gateway can't be reached, and when it can be again. */
function connection(good) {
  const note = document.getElementById("offline");
  if (note) note.hidden = good;
}
