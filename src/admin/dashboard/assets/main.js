// Every page begins here: who is it, which page, and what must be known everywhere.

import { data, el, prose, show, toast } from "./lib/dom.js";
import { ApiError, call, live, news, part, session } from "./lib/api.js";
import { ago, zone } from "./lib/format.js";

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
const home = /^\/(?:instances)?$/.test(path);

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
    el("a", { class: "button plain", href: "/sessions", title: `${who.label ?? who.subject}, ${who.role}` }, { admin: "Admin", "workspace-admin": "Workspace admin" }[who.role] ?? "Operator"),
    who.via === "session" ? out : null);
  const notices = el("div", { class: "stack", id: "notices" },
    el("p", { class: "note bad", id: "offline", role: "alert", hidden: true }, "The gateway can't be reached. What you see is from before; the page tries again."),
    el("p", { class: "note bad", id: "ended", role: "alert", hidden: true }, "Your session has ended. What you wrote here is kept: ", el("a", { href: "/login?next=/sessions", target: "_blank" }, "log in in another tab"), ", then go on here."));
  main.before(notices);
  const foot = el("footer", { class: "foot quiet small" });
  main.after(foot);
  // What sticks below the bar has to know how high it is.
  new ResizeObserver(([entry]) => document.documentElement.style.setProperty("--top", `${entry.target.offsetHeight}px`)).observe(document.getElementById("top"));
  let last = "";
  live(async () => {
    const status = await news("status");
    if (!foot.firstChild) show(foot, `Tidegate ${status.version}. Times are those of this browser, ${zone()}. `, el("a", { href: "/api/v1/openapi.json" }, "Description of the API"));
    const text = JSON.stringify([status.warnings, status.config_errors, status.problems]);
    if (text === last) return;
    last = text;
    const problems = status.problems ?? [];
    const number = problems.length + (status.config_errors ?? []).length;
    document.title = `${number ? `(${number}) ` : ""}${document.title.replace(/^\(\d+\) /, "")}`;
    notices.querySelectorAll(".from-status").forEach((note) => note.remove());
    for (const warning of status.warnings ?? []) notices.append(el("p", { class: "note warn from-status" }, warning));
    badge(number).catch(console.error);
    // Home has them whole.
    if (home) return;
    if (problems.length) {
      notices.append(el("div", { class: "note bad from-status", id: "problems-now" }, el("ul", {}, problems.slice(0, PROBLEMS_SHOWN).map((each) => el("li", {}, problem(each))),
        problems.length > PROBLEMS_SHOWN && el("li", {}, `and ${problems.length - PROBLEMS_SHOWN} more: `, el("a", { href: "/?instances.status=failed" }, "instances"), ", ", el("a", { href: "/routes" }, "routes")))));
    }
    const errors = status.config_errors ?? [];
    if (errors.length) {
      notices.append(el("p", { class: "note bad from-status" },
        `${errors.length === 1 ? "One error" : `${errors.length} errors`} in route files; what was read before stays in effect. `,
        el("a", { href: "/routes#errors" }, "See where")));
    }
  }, 10);
}

/** The number of problems on the icon of the tab, as in its title. */
async function badge(number) {
  const link = document.querySelector("link[rel=icon]");
  const plain = `${document.body.dataset.files}/icon.svg`;
  if (!number) {
    link.href = plain;
    return;
  }
  const picture = new Image(64, 64);
  picture.src = plain;
  await picture.decode();
  const canvas = el("canvas", { width: 64, height: 64 });
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, 64, 64);
  pen.fillStyle = "#b3261e";
  pen.beginPath();
  pen.arc(42, 42, 22, 0, 2 * Math.PI);
  pen.fill();
  pen.fillStyle = "#fff";
  pen.font = "bold 34px sans-serif";
  [pen.textAlign, pen.textBaseline] = ["center", "middle"];
  pen.fillText(number > 9 ? "9+" : String(number), 42, 44, 36);
  link.href = canvas.toDataURL("image/png");
}

/** Lines of what fails; the rest is a number. */
const PROBLEMS_SHOWN = 3;

/** What fails, since when and why, with the way there. */
function problem(each) {
  const [first = ""] = (each.why ?? "").split("\n");
  const why = [each.since && ` ${ago(each.since)}`, first && `: ${first}`];
  if (each.kind === "waiting") return [el("a", { href: `/instances/${part(each.of)}#why` }, data(each.name, 80)), " waits for room", data(why.filter(Boolean).join(""), 300)];
  return each.kind === "server"
    ? ["A server of the route ", el("a", { href: `/routes?routes.filter=${part(each.of)}` }, data(each.of, 60)), " fails: ", data(`${each.name}${first ? `, ${first}` : ""}`, 300)]
    : [el("a", { href: `/instances/${part(each.of)}` }, data(each.name, 80)), " failed", data(why.filter(Boolean).join(""), 300)];
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
