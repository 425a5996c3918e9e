// Every page begins here: who is it, which page, and what must be known everywhere.

import { el, prose, show, toast } from "./lib/dom.js";
import { ApiError, call, get, live, session } from "./lib/api.js";

const PAGES = [
  [/^\/login$/, "login"],
  [/^\/embed\/([^/]+)$/, "embed"],
  [/^\/(?:instances)?$/, "instances"],
  [/^\/instances\/([^/]+)$/, "instance"],
  [/^\/launch$/, "launch"],
  [/^\/endpoints$/, "endpoints"],
  [/^\/gpus$/, "gpus"],
  [/^\/routes$/, "routes"],
  [/^\/tokens$/, "tokens"],
  [/^\/activity$/, "activity"],
  [/^\/sessions$/, "sessions"],
];

const main = document.getElementById("main");
const path = location.pathname.replace(/(.)\/+$/, "$1");

async function start() {
  const found = PAGES.map(([pattern, name]) => [path.match(pattern), name]).find(([match]) => match);
  const [match, name] = found ?? [[""], "lost"];
  const page = import(`./pages/${name}.js`);
  if (name !== "login" && name !== "embed") {
    const who = await session();
    frame(who);
  }
  const { default: render } = await page;
  await render(main, ...match.slice(1).map(decodeURIComponent));
  if (location.hash.length > 1) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

/** The bar above every page. */
function frame(who) {
  document.getElementById("top").hidden = false;
  for (const link of document.querySelectorAll(".nav a")) {
    const target = link.getAttribute("href");
    const here = target === "/" ? path === "/" || path.startsWith("/instances") : path.startsWith(target);
    if (here) link.setAttribute("aria-current", "page");
  }
  const theme = el("button", { type: "button", class: "plain icon-button", on: { click: turn } });
  const name = () => (document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  const label = () => {
    theme.setAttribute("aria-label", `Switch to the ${name()} theme`);
    show(theme, el("span", { "aria-hidden": "true" }, name() === "dark" ? "☾" : "☀"));
  };
  function turn() {
    const next = name();
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("tidegate-theme", next);
    } catch {
      // No storage: it holds for this page.
    }
    label();
    dispatchEvent(new Event("themechange"));
  }
  addEventListener("themechange", label);
  label();
  const out = el("button", { type: "button", class: "plain", on: { click: logout } }, "Log out");
  show(document.getElementById("tools"),
    el("a", { class: "button primary", href: "/launch" }, "Launch New"), theme,
    el("a", { class: "button plain", href: "/sessions", title: `${who.subject}, ${who.role}` }, { admin: "Admin", "workspace-admin": "Workspace admin" }[who.role] ?? "Operator"),
    who.via === "session" ? out : null);
  const notices = el("div", { class: "stack", id: "notices" },
    el("p", { class: "note bad", id: "offline", role: "alert", hidden: true }, "The gateway can't be reached. What you see is from before; the page tries again."));
  main.before(notices);
  let last = "";
  live(async () => {
    const status = await get("status");
    const text = JSON.stringify([status.warnings, status.config_errors]);
    if (text === last) return;
    last = text;
    notices.querySelectorAll(".from-status").forEach((note) => note.remove());
    for (const warning of status.warnings ?? []) notices.append(el("p", { class: "note warn from-status" }, warning));
    const errors = status.config_errors ?? [];
    if (errors.length) {
      notices.append(el("p", { class: "note bad from-status" },
        `${errors.length === 1 ? "One error" : `${errors.length} errors`} in route files; what was read before stays in effect. `,
        el("a", { href: "/routes#errors" }, "See where")));
    }
  }, 10);
}

async function logout() {
  try {
    await call("DELETE", "session");
    location.assign("/login");
  } catch (error) {
    toast(error.message, "bad");
  }
}

start().catch((error) => {
  if (error instanceof ApiError && error.status === 401) return;
  console.error(error);
  show(main, el("div", { class: "card stack" }, el("h1", {}, error.status === 404 ? "Not there" : "This page can't be shown"),
    el("p", { class: "note bad", role: "alert" }, prose(error.message)),
    el("div", { class: "actions" }, el("button", { type: "button", class: "primary", on: { click: () => location.reload() } }, "Try again"),
      el("a", { class: "button", href: "/" }, "All instances"))));
});
