"""From the login to the end of an instance, as a person goes."""

import json
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from checks.report import expect, wait_for

#: Text that would be a script if any page took it for HTML.
HOSTILE = "<img src=x onerror=\"window.pwned=1\"><b>bold</b> \u202eevil"


#: Run in the page: what the console makes of what programs write to terminals.
_CONSOLE_TEST = r"""
const done = arguments[0];
import(document.body.dataset.files + "/lib/ansi.js").then(({ pieces, plain, progressKey }) => {
  const e = "\u001b";
  const cases = [
    [pieces(`${e}[1;31mred${e}[0m plain`), [{ text: "red", className: "a-red a-bold" }, { text: " plain", className: "" }]],
    [pieces(`${e}[38;5;196mx`), [{ text: "x", className: "a-red" }]],
    [pieces(`${e}[38;2;10;200;10mx`), [{ text: "x", className: "a-green" }]],
    [pieces(`a${e}[2Jb${e}]8;;http://evil${"\u0007"}c${e}(Bd`).map((each) => each.text).join(""), "abcd"],
    [plain("10%\r50%\r100%"), "100%"],
    [plain("<script>alert(1)</script>"), "<script>alert(1)</script>"],
    [progressKey("Loading shards:  10% Completed | 1/10") === progressKey("Loading shards:  90% Completed | 9/10"), true],
    [progressKey("GPU 0 is at 10% of its memory"), null],
  ];
  done(cases.filter(([seen, wanted]) => JSON.stringify(seen) !== JSON.stringify(wanted)).map((each) => JSON.stringify(each)).join("\n"));
}, (error) => done(String(error)));
"""


def log_in(report, browser, gateway, token):
    """A stranger sees nothing; a wrong token is told of; the right one opens a session."""
    with report.check("login: a page leads to the login, and a wrong token is refused in words"):
        browser.go("/tokens")
        browser.wait_path("/login")
        browser.wait_text("Log in")
        browser.fill("Token", "tg_wrong")
        browser.click("Log in")
        browser.wait_find("[role=alert]:not([hidden])")
        expect(browser.text("[role=alert]:not([hidden])"), "nothing is said")
    with report.check("login: a token of a user is not enough"):
        browser.fill("Token", gateway.token("--workspace", "w1", "--project", "research"))
        browser.click("Log in")
        browser.wait_text("role", css="[role=alert]")
    with report.check("login: a token opens a session, and leads to the page that was asked for") as check:
        browser.fill("Token", token)
        browser.click("Log in")
        browser.wait_path("/tokens")
        browser.wait_text("Generate Token")
        cookies = browser.driver.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]
        own = [each for each in cookies if each["name"].startswith("__Host-")]
        expect(own and all(each["httpOnly"] and each["secure"] and each["sameSite"] == "Strict" for each in own),
               f"the cookies are {cookies}")
        expect(token not in browser.js("return document.documentElement.outerHTML + JSON.stringify(localStorage)"),
               "the token stays in the page")
        check.figure = ", ".join(each["name"] for each in own)


def launch(report, browser, gateway):
    """A stand-in out of the form: mistakes are told while one types; then it loads and serves."""
    with report.check("launch form: every option of the table is there, and mistakes are told while one types"):
        browser.go("/launch")
        browser.wait_text("Say which model", css="#problems")
        expect(browser.find("#problems .bad") is None, "an empty form is no mistake")
        table = json.loads(gateway.run("options", "--format", "json").stdout)["options"]
        wanted = {option["name"] for option in table if ".options." in option["key"]}
        wait_for("all options", lambda: _unfold(browser) or wanted <= set(browser.js(
            "return [...document.querySelectorAll('[data-option]')].map((each) => each.dataset.option)")), 20)
        browser.fill("Model", "Qwen/Qwen3-8B")
        browser.fill("Instance name", "from-form")
        browser.fill("GPUs (Tensor Parallel Size)", "many")
        browser.wait_text("GPUs (Tensor Parallel Size) write a whole number", css="#problems")
        browser.fill("GPUs (Tensor Parallel Size)", "1")
        browser.fill("Dtype", "bfloat16")
        browser.wait_text("Everything fits", css="#problems")
        browser.wait_text("--dtype bfloat16", css="#preview")
    with report.check("launch form: an option is found by its words, in sight and with the focus; groups stay open") as check:
        browser.js("document.querySelectorAll('details').forEach((each) => { each.open = false; }); scrollTo(0, 0); document.activeElement.blur()")
        browser.keys("/", "kv cache dt")
        wait_for("a hit", lambda: "KV Cache Dtype" in browser.text(".find-hits li[aria-selected=true]"), 10)
        browser.keys(Keys.ENTER)
        seen = browser.js("const on = document.activeElement.closest('[data-option]'); const box = on?.getBoundingClientRect();"
                          "return [on?.dataset.option, box?.top >= 0 && box?.bottom <= innerHeight]")
        expect(seen == ["kv_cache_dtype", True], f"the focus is at {seen}")
        browser.fill("Find an option", "nothing has this")
        wait_for("it says so", lambda: "Nothing here" in browser.text(".find-hits"), 10)
        browser.keys(Keys.ESCAPE)
        browser.click("Add a model")
        expect(browser.js("return document.querySelector('[data-option=kv_cache_dtype]')?.getClientRects().length > 0"), "its group was closed")
        browser.click("Remove model 2")
        _unfold(browser)
        check.figure = "KV Cache Dtype"
    with report.check("launch form: a rule across options is checked as one types"):
        browser.fill("Max LoRAs", "2")
        browser.wait_text("enable_lora", css="#problems")
    with report.check("launch form: an option that a version does not have is folded away with the reason"):
        browser.fill("vLLM Version", "0.32.0")
        browser.keys(Keys.TAB)
        reason = "return document.querySelector('.gone [data-option=swap_space]')?.textContent ?? ''"
        wait_for("swap_space is among those that 0.32.0 lacks", lambda: "removed by 0.18.0" in (_unfold(browser) or browser.js(reason)), 20)
        browser.fill("vLLM Version", "0.7.2")
        browser.keys(Keys.TAB)
        wait_for("swap_space can be set", lambda: _unfold(browser) or browser.find("[data-option=swap_space] input"), 20)
    with report.check("launch: a stand-in from the form, by keys alone; it loads and serves") as check:
        _launch_by_keys(browser)
        browser.wait_path("/instances/from-form")
        began = time.monotonic()
        browser.wait_text("loading", css="main")
        browser.wait_text("%", css="[role=tabpanel]")
        wait_for("it is idle", lambda: "idle" in browser.text(".head"), 30)
        check.figure = f"idle {time.monotonic() - began:.1f} s after the page was there"


def _unfold(browser):
    """Opens every group of the form: their fields are made then."""
    browser.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


def _launch_by_keys(browser):
    """Fills the form with the keyboard alone."""
    browser.go("/launch")
    browser.wait_find("#launch")
    browser.wait_text("Say which model", css="#problems")
    values = {"Instance name": "from-form", "Service Project (Access Control)": "research", "Engine": "Stand-in", "Model": "stand/in",
              "Model Endpoint Name": "from-form-model", "Load time": "2", "Tokens per second": "200",
              "Offload after": "60"}
    done = set()
    browser.js("document.querySelector('.brand').focus()")
    for _ in range(140):
        browser.keys(Keys.TAB)
        label, identity = browser.js(
            "const on = document.activeElement; return [(on.labels?.[0]?.textContent ?? on.textContent ?? '').trim(), on.id]")
        seen = browser.js("const box = document.activeElement.getBoundingClientRect(); return box.width > 0 && box.height > 0")
        expect(seen, f"the focus is on something unseen: {label!r} {identity!r}")
        if label in values and label not in done:
            browser.keys(values[label])
            done.add(label)
        elif identity == "launch":
            break
    expect(len(done) == len(values), f"not reached by keys: {set(values) - done}")
    browser.wait_text("Everything fits", css="#problems")
    browser.keys(Keys.ENTER)
    browser.wait_find("dialog .diff ins")
    browser.keys(Keys.ENTER)


def ask(report, browser, gateway):
    """The curl line of the page, with a token of the page, is run and answered."""
    token = None
    with report.check("token: made on the instance's page, shown once, copied"):
        browser.click("Generate Token", within=".head")
        browser.fill("Label", HOSTILE)
        browser.fill("Workspace", "w1")
        browser.click("Generate Token", kinds="dialog button.primary")
        browser.wait_find("#new-token")
        browser.click("Copy the token")
        token = browser.clipboard()
        expect(token == browser.js("return document.querySelector('#new-token').value"), f"copied: {token[:20]!r}")
        browser.click("Done")
    with report.check("curl line: copied, run as it is, answered") as check:
        browser.fill("Prompt", "it's \"quoted\" & $HOME")
        browser.click("Copy Example", kinds="#access-example button")
        line = browser.clipboard()
        expect("YOUR_GENERATED_TOKEN" in line, line)
        done = subprocess.run(["bash", "-c", line.replace("YOUR_GENERATED_TOKEN", token)], cwd=gateway.directory,
                              capture_output=True, text=True, timeout=60, check=False)
        expect(done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr[-300:]}")
        answer = json.loads(done.stdout)
        expect(answer.get("choices"), f"{answer}")
        check.figure = answer["choices"][0]["message"]["content"][:40]
    return token


def watch(report, browser, gateway, token):
    """Plots move, the console follows, events have reasons."""
    def send():
        body = json.dumps({"model": "from-form-model", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20})
        subprocess.run(["curl", "-s", "--cacert", str(gateway.ca), f"{gateway.url}/v1/chat/completions", "-H", f"Authorization: Bearer {token}",
                        "-H", "Content-Type: application/json", "-d", body], capture_output=True, timeout=60, check=False)

    def points():
        return browser.js(
            "return Number(document.querySelector('.plot[aria-label=\"Total Number of Requests\"]')?.dataset.points ?? 0)")

    with report.check("plots: they are drawn, and move while requests come") as check:
        browser.go("/instances/from-form?range=900")
        before = wait_for("the plot of requests has points", points, 45)
        send()
        after = wait_for("it has more", lambda: points() > before and points(), 45)
        check.figure = f"{before}, then {after} points"
    with report.check("plots: hovering shows values, dragging zooms"):
        browser.js("document.querySelector('.plot[aria-label=\"Total Number of Requests\"]').scrollIntoView({ block: 'center' })")
        area = browser.wait_find('.plot[aria-label="Total Number of Requests"] .nsewdrag')
        # What was recorded is at the right end.
        edge = area.size["width"] // 2

        def hovered():
            for back in (25, 12, 6):
                ActionChains(browser.driver).move_to_element_with_offset(area, edge - back, 0).perform()
                if browser.find('.plot[aria-label="Total Number of Requests"] .hoverlayer text'):
                    return True
            return False
        wait_for("values under the pointer", hovered, 20)
        ranged = "return document.querySelector('.plot[aria-label=\"Total Number of Requests\"] .canvas').layout.xaxis.range.join()"
        whole = browser.js(ranged)
        ActionChains(browser.driver).move_to_element_with_offset(area, edge - 120, 0).click_and_hold().move_by_offset(115, 0).release().perform()
        wait_for("it is zoomed", lambda: browser.js(ranged) != whole, 10)
    with report.check("plots: what was marked holds for all of them, in the address, through refreshes, until Live") as check:
        all_ = "return [...document.querySelectorAll('.plot .canvas')].filter((each) => each.layout).map((each) => each.layout.xaxis.range.join())"
        wait_for("all plots show it, in whole seconds", lambda: len(set(browser.js(all_))) == 1 and "." not in browser.js(ranged), 20)
        marked = browser.js(ranged)
        expect("from=" in browser.driver.current_url and "to=" in browser.driver.current_url, browser.driver.current_url)
        loads = "return performance.getEntriesByType('resource').filter((each) => each.name.includes('/series?')).length"
        before = browser.js(loads)
        wait_for("two refreshes", lambda: browser.js(loads) >= before + 2 * max(1, browser.js(
            "return new Set(performance.getEntriesByType('resource').filter((each) => each.name.includes('/series?')).map((each) => new URL(each.name).searchParams.get('scope'))).size")), 45)
        expect(browser.js(ranged) == marked, f"{browser.js(ranged)}, was {marked}")
        browser.go("/" + browser.driver.current_url.split("/", 3)[3])
        wait_for("the address leads there", lambda: browser.find('.plot[aria-label="Total Number of Requests"] .main-svg') and browser.js(ranged) == marked, 30)
        browser.click("Live")
        wait_for("it moves on", lambda: browser.js(ranged) != marked, 20)
        expect("from=" not in browser.driver.current_url, browser.driver.current_url)
        check.figure = marked
    with report.check("console: it follows, searches, pauses"):
        browser.click("Console", kinds="[role=tab]")
        browser.wait_find(".console > div", 20)
        lines = len(browser.driver.find_elements("css selector", ".console > div"))
        gateway.run("stop", "from-form")
        gateway.wait_shown("from-form/from-form-model", "pid", None, 20)
        gateway.run("start", "from-form")
        wait_for("a new line", lambda: len(browser.driver.find_elements("css selector", ".console > div")) > lines, 20)
        browser.fill("Search the console", "the")
        browser.click("Pause")
        browser.wait_text("Paused")
        browser.click("Go on")
        browser.click("Download")
        expect(browser.downloaded("from-form.log"), "the log is empty")
    with report.check("console: colours as classes, a line written over, progress bars as one, nothing run"):
        wrong = browser.driver.execute_async_script(_CONSOLE_TEST)
        expect(not wrong, wrong)
    with report.check("events: what was decided, and why") as check:
        browser.click("Events", kinds="[role=tab]")
        browser.wait_find("#panel-events td")
        check.figure = browser.text("#panel-events tbody tr").replace("\n", " ")[:100]


def filled(browser, name):
    """Waits until the form is that of an instance."""
    wait_for(f"the form is filled with {name}", lambda: browser.value("Instance name") == name, 15)


def reviewed(browser):
    """Launches what the form holds, by way of its review."""
    browser.click("Review", kinds="#launch")
    browser.wait_find("dialog .diff ins")
    expect("new; its worker" in browser.text("dialog .review > section:last-child"), browser.text("dialog .review"))
    browser.click("Launch", kinds="dialog button")


def exchange(report, browser, gateway):
    """Export, import, clone."""
    with report.check("configuration: shown as a form; exported without secrets"):
        browser.click("Configuration", kinds="[role=tab]")
        browser.wait_text("from-form-model")
        browser.click("Export as JSON")
        exported = browser.downloaded("from-form.json")
        expect(json.loads(exported)["instance"]["name"] == "from-form", exported[:200])
    with report.check("clone: the form is filled, names are free; launched, both are there"):
        browser.click("Clone", within="#panel-configuration")
        browser.wait_path("/launch")
        browser.wait_find("#launch")
        filled(browser, "from-form-2")
        browser.wait_text("Everything fits", css="#problems")
        browser.click("Start it at once", kinds="label")
        reviewed(browser)
        browser.wait_path("/instances/from-form-2")
        browser.wait_text("stopped", css=".head")
    with report.check("import: a TOML file and an exported JSON fill the form; launched"):
        toml = gateway.directory / "own.toml"
        toml.write_text('[instance]\nname = "own"\nengine = "sim"\n[[deployment]]\nmodel = "a/b"\nendpoint_name = "own-model"\n', encoding="utf-8")
        browser.go("/launch")
        browser.wait_find("#import-file").send_keys(str(toml))
        filled(browser, "own")
        fresh = browser.downloads / "again.json"
        fresh.write_text(exported.replace("from-form", "imported"), encoding="utf-8")
        browser.find("#import-file").send_keys(str(fresh))
        filled(browser, "imported")
        browser.wait_text("Everything fits", css="#problems")
        reviewed(browser)
        browser.wait_path("/instances/imported")
    with report.check("delete: asked first, then gone"):
        browser.click("Delete", within=".head")
        browser.click("Delete", kinds="dialog button")
        browser.wait_path("/")
        wait_for("the file is gone", lambda: not list((gateway.directory / "routes.d").glob("imported.*")), 20)


def tokens(report, browser, gateway, token):
    """The list of tokens: text as text; revoked is refused."""
    with report.check("tokens: a label with HTML is text; the token is revoked, and refused from then on") as check:
        browser.go("/tokens")
        browser.wait_text("<b>bold</b>")
        expect(browser.js("return window.pwned") is None, "the label was run")
        browser.fill("Filter tokens", "bold")
        browser.click("Revoke ", kinds="td button")
        browser.click("Revoke", kinds="dialog button")
        browser.wait_text("revoked", css="table")
        status, body = gateway.get("/v1/models", token)
        expect(status == 401 and "revoked" in body, f"{status} {body[:200]}")
        check.figure = "401 token_revoked"


def routes(report, browser):
    """A test of a route; an error in a file; endpoints compared."""
    with report.check("routes: the test button sends a real request and shows each step") as check:
        browser.go("/routes")
        browser.wait_text("from-form")
        browser.fill("Filter routes", "chat")
        browser.click("Test chat")
        browser.click("Start or wake the worker if need be", kinds="label")
        browser.click("Send", kinds="dialog button")
        browser.wait_text("It answers", 40)
        check.figure = " ".join(browser.text("dialog tbody").split())[:100]
        browser.keys(Keys.ESCAPE)
    with report.check("routes: the test of a route by its own name starts nothing that it may not") as check:
        browser.go("/routes")
        browser.fill("Filter routes", "pool")
        browser.click("Test pool")
        browser.click("Send", kinds="dialog button")
        browser.wait_text("It does not answer", 20)
        check.figure = " ".join(browser.text("dialog tbody").split())[:100]
        expect("is stopped" in check.figure, check.figure)
        browser.keys(Keys.ESCAPE)
    with report.check("routes: the error of an editor and its button stay within the dialog"):
        browser.click("New Route")
        browser.wait_find("dialog textarea")
        browser.fill("Name", "pools")
        browser.fill("Route file (TOML)", '[route]\nname = "pools"\nrequests_per_minuet = 5\n' + "# " + "x" * 300)
        browser.click("Review", kinds="dialog button")
        browser.wait_text("requests_per_minute", css="dialog [role=alert]")
        over = browser.js("""
            const dialog = document.querySelector("dialog[open]"), right = dialog.getBoundingClientRect().right;
            return [...dialog.querySelectorAll("[role=alert], button.primary, textarea")].filter((each) => each.getBoundingClientRect().right > right).length + (dialog.scrollWidth > dialog.clientWidth);
            """)
        expect(over == 0, f"{over} stand out of the dialog")
        # A refused file is an error of the browser's console, and meant to be.
        browser.complaints()
        browser.keys(Keys.ESCAPE)
    with report.check("endpoints: the Active tab, as CSV, two of them in one plot"):
        browser.go("/endpoints")
        browser.wait_text("from-form-model")
        browser.click("Download CSV")
        csv = browser.downloaded("endpoints-active.csv")
        expect("from-form-model" in csv and csv.startswith("endpoint,"), csv[:200])
        browser.js("document.querySelectorAll('#panel-active tbody input[type=checkbox]').forEach((box) => box.click())")
        browser.wait_find('.plot[aria-label="Comparison"][data-points] .main-svg', 30)


def routes_with_errors(report, browser, gateway):
    """A file with a mistake: file, line and text are shown."""
    with report.check("routes: a mistake in a file is shown with file, line and text; what was before serves on"):
        gateway.route("wrong", '[route]\nname = "wrong"\npth = "/wrong"\n')
        browser.go("/routes")
        browser.wait_text("Errors in route files", 20)
        shown = browser.text("#errors")
        expect("wrong.toml, line 3" in shown and 'pth = "/wrong"' in shown and "path" in shown, shown[:400])
        (gateway.directory / "routes.d" / "wrong.toml").unlink()
        wait_for("the error is gone", lambda: browser.js("return document.querySelector('#errors').hidden"), 20)


class _Page(BaseHTTPRequestHandler):
    """Another site, with a frame in it."""

    html = ""

    def do_GET(self):
        """The page."""
        body = self.html.encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


def embed(report, browser, gateway):
    """A plot in a page of another site, and as a picture; then revoked."""
    with report.check("embed: a link is made; another site shows the live plot, a picture needs no script") as check:
        browser.go("/instances/from-form")
        browser.click("Embed Total Number of Requests")
        browser.click("Make a link")
        block = "[data-embed='Live page, for places that take HTML'] code"
        browser.wait_find(block)
        html = browser.text(block)
        address = browser.text("[data-embed='Address of the picture'] code")
        done = subprocess.run(["curl", "-s", "--cacert", str(gateway.ca), "-D", "-", address], capture_output=True, text=True, timeout=30, check=False)
        expect("image/svg+xml" in done.stdout and "<svg" in done.stdout, f"{address}: {done.stdout[:300]}")
        _Page.html = f"<!doctype html><title>Report</title>{html}"
        site = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            browser.driver.get(f"http://127.0.0.1:{site.server_port}/")
            frame = browser.wait_find("iframe")
            browser.driver.switch_to.frame(frame)
            wait_for("the plot in the frame", lambda: browser.js(
                """
                const picture = document.querySelector("img#plot");
                return document.querySelector(".plot[data-points] .main-svg") !== null || (picture?.complete && picture.naturalWidth > 0);
                """), 30)
            expect(browser.js("return document.cookie") == "", "the frame has a cookie")
            browser.driver.switch_to.default_content()
            browser.picture("embedded-in-another-site")
        finally:
            site.shutdown()
        check.figure = f"{len(done.stdout) // 1024} KiB of SVG"
    with report.check("embed: revoked, the link shows nothing any more"):
        browser.go("/instances/from-form")
        browser.click("Embed Total Number of Requests")
        browser.click("Links to plots of", kinds="dialog summary")
        browser.click("Revoke ", kinds="dialog li button")
        browser.wait_text("The link is revoked")
        done = subprocess.run(["curl", "-s", "--cacert", str(gateway.ca), "-o", "/dev/null", "-w", "%{http_code}", address],
                              capture_output=True, text=True, timeout=30, check=False)
        expect(re.fullmatch(r"40[134]|410", done.stdout), f"it answers {done.stdout}")


def stop(report, browser, gateway):
    """Offload, wake, stop."""
    with report.check("offload and wake: by buttons") as check:
        browser.go("/instances/from-form")
        browser.click("Offload", within=".head")
        wait_for("it is offloaded", lambda: "offloaded" in browser.text(".head"), 20)
        browser.click("Wake", within=".head")
        wait_for("it is idle", lambda: "idle" in browser.text(".head"), 20)
        check.figure = "offloaded, then idle"
    with report.check("unload: it ends, and its next request would start it"):
        browser.click("Unload", within=".head")
        wait_for("it is stopped", lambda: "stopped" in browser.text(".head"), 20)
        browser.click("Start", within=".head")
        wait_for("it is idle again", lambda: "idle" in browser.text(".head"), 30)
    with report.check("stop: asked first, then stopped"):
        browser.click("Stop", within=".head")
        browser.wait_text("Stop from-form?")
        browser.click("Cancel", kinds="dialog button")
        expect("idle" in browser.text(".head"), "Cancel did not keep it")
        browser.click("Stop", within=".head")
        browser.click("Stop", kinds="dialog button")
        wait_for("it is stopped", lambda: "stopped" in browser.text(".head"), 30)
        wait_for("the worker is gone", lambda: gateway.deployment("from-form/from-form-model")["pid"] is None, 30)


def log_out(report, browser):
    """The session ends."""
    with report.check("logout: the session ends, its cookie opens nothing"):
        browser.go("/sessions")
        browser.wait_text("this one")
        browser.click("Log out")
        browser.wait_path("/login")
        status = browser.driver.execute_async_script("fetch('/api/v1/instances').then((r) => arguments[0](r.status))")
        expect(status == 401, f"status {status}")
