// Logging in: with a token, or with the code of a one-time link.

import { el, show } from "../lib/dom.js";
import { call } from "../lib/api.js";

/** Where to go then: a page of ours. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  return /^\/(?![/\\])/.test(wanted) ? wanted : "/";
}

export default async function login(main) {
  document.title = "Log in – Tidegate";
  const code = new URLSearchParams(location.search).get("code");
  const wrong = el("p", { class: "note bad", role: "alert", hidden: true });
  const token = el("textarea", { id: "token", name: "token", rows: 3, required: true, autocomplete: "off", spellcheck: "false", placeholder: "tgw_…" });
  const go = el("button", { class: "primary" }, "Log in");
  const form = el("form", { class: "card stack", on: { submit } },
    code
      ? el("p", {}, "This link logs in once. It is used up by the button, not by opening it.")
      : [el("label", { for: "token" }, "Token"), token,
        el("p", { class: "quiet small" }, "A token with the role operator or admin. On the machine of the gateway: ",
          el("code", {}, "tidegate token create --workspace default --role admin"), ", or a login link with ", el("code", {}, "tidegate login"), ".")],
    wrong, el("div", { class: "actions" }, go));
  const brand = el("div", { class: "welcome" }, el("img", { src: `${document.body.dataset.files}/icon.svg`, alt: "" }), el("h1", {}, "Tidegate"),
    el("p", { class: "quiet" }, "Your models behind one gate"));
  show(main, el("div", { class: "narrow" }, brand, form));
  (code ? go : token).focus();

  async function submit(event) {
    event.preventDefault();
    wrong.hidden = true;
    go.disabled = true;
    try {
      await call("POST", "session", { body: code ? { code } : { token: token.value.trim() } });
      location.replace(next());
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
      go.disabled = false;
    }
  }
}
