"""The first page: whether all is well, and what to do where it is not; whom a start moves out."""

import json
import subprocess

from browser import look
from browser.chromium import Browser
from checks.report import expect, wait_for
from checks.tidegate import Tidegate

GPU = '[gpus]\nsource = "simulated"\nsimulated = [{ memory = "80GiB" }]\n'


def big(name):
    """An instance of which one fits on the GPU."""
    return f"""[instance]
name = "{name}"
project = "research"
engine = "sim"
[[deployment]]
model = "stand/{name}"
endpoint_name = "{name}"
[deployment.sim]
load = "100ms"
weights = "60GiB"
tokens_per_second = 20
"""


def failing(report, browser):
    """With a model that failed, and a file with a mistake."""
    with report.check("home: problems by harm, each with since when, why, what helps and a button; tab and icon carry their number") as check:
        browser.go("/")
        browser.wait_text("broken/broken failed", css="#problems-here")
        seen = browser.text("#problems-here").split("\n")
        check.figure = seen[0]
        expect("ago" in seen[1] or "just now" in seen[1], f"{seen}")
        expect(any("vllm" in line.lower() for line in seen) and any("then start it" in line for line in seen) and "Edit" in " ".join(seen), f"{seen}")
        expect(any("wrong.toml, line 3" in line for line in seen[4:]), f"the file is not below the model: {seen}")
        number = browser.js("return document.querySelectorAll('#problems-here li').length")
        wait_for("the tab says how many", lambda: browser.js("return document.title").startswith(f"({number}) "), 15)
        wait_for("the icon is another", lambda: browser.js("return document.querySelector('link[rel=icon]').href").startswith("data:image/png"), 15)
    with report.check("home: figures lead to the list of what they count"):
        browser.click("1", kinds=".facts a.bad")
        browser.wait_find("tbody tr")
        wait_for("one row", lambda: browser.js("return [...document.querySelectorAll('tbody tr td:first-child')].map((cell) => cell.textContent)") == ["broken"], 15)
        expect(browser.value("Any status") == "failed", f"{browser.value('Any status')}")
        browser.go("/?instances.status=ready")
        browser.wait_find("tbody tr")
        expect("team-llms" in browser.text("tbody") and "broken" not in browser.text("tbody"), browser.text("tbody"))
    with report.check("home: each GPU is a bar of who holds it"):
        expect(browser.js("return document.querySelectorAll('.strip .bar').length") == 2, "there are not two bars")
        expect(browser.js("return document.querySelectorAll('.strip .bar i[title]').length") >= 2, browser.js("return document.querySelector('.strip').outerHTML"))


def room(report, out):
    """Two models of which one fits."""
    with Tidegate(GPU) as gateway:
        for file in (gateway.directory / "routes.d").glob("*.toml"):
            file.unlink()
        for name in ("big-a", "big-b"):
            gateway.route(name, big(name))
        gateway.start("--stop-workers")
        gateway.run("start", "big-a")
        gateway.wait_shown("big-a/big-a", "status", "idle", 20)
        with Browser(f"https://127.0.0.1:{gateway.admin_port}", out) as browser:
            link = next(word for word in gateway.run("login").stdout.split() if "code=" in word)
            browser.go(link[link.index("/login"):])
            browser.click("Log in")
            browser.wait_path("/")
            with report.check("home: says so where all is well") as check:
                browser.wait_text("All well: ", css="#well")
                check.figure = browser.text("#well")
                expect(not browser.js("return document.title").startswith("("), "the tab has a number")
            _moved_out(report, browser, gateway)
            _waits(report, browser, gateway)


def _moved_out(report, browser, gateway):
    with report.check("explain: an instance says why it does not run, and who would leave; a start says it before it is confirmed") as check:
        browser.go("/instances/big-b")
        browser.wait_text("big-a/big-a", css="#why")
        check.figure = browser.text("#why").replace("\n", " ")
        browser.click("Start", within=".head")
        browser.wait_text("would leave", css="dialog[open]")
        expect("big-a/big-a" in browser.text("dialog[open]"), browser.text("dialog[open]"))
        browser.picture("start-moves-out")
        browser.click("Cancel", kinds="dialog button")
        expect(gateway.deployment("big-b/big-b")["status"] == "stopped", "Cancel started it")
        browser.click("Start", within=".head")
        browser.click("Start", kinds="dialog button")
        wait_for("it runs", lambda: gateway.deployment("big-b/big-b")["status"] == "idle", 30)
        expect(gateway.deployment("big-a/big-a")["status"] in ("stopped", "stopping", "offloaded"), f"{gateway.deployment('big-a/big-a')}")
    with report.check("explain: one that nobody leaves for starts without a question"):
        browser.click("Stop", within=".head")
        browser.click("Stop", kinds="dialog button")
        wait_for("it is stopped", lambda: "stopped" in browser.text(".head"), 20)
        browser.click("Start", within=".head")
        wait_for("it runs", lambda: gateway.deployment("big-b/big-b")["status"] == "idle", 30)


def _waits(report, browser, gateway):
    def ask(model, tokens):
        body = {"model": model, "stream": True, "max_tokens": tokens, "ignore_eos": True, "messages": [{"role": "user", "content": "Hi"}]}
        return subprocess.Popen(
            ["curl", "-sN", "--max-time", "100", "--cacert", str(gateway.ca), f"{gateway.url}/v1/chat/completions", "-H", f"Authorization: Bearer {token}",
             "-H", "Content-Type: application/json", "-d", json.dumps(body)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    token = gateway.token("--workspace", "w1", "--project", "research")
    with report.check("home: a model that requests wait for, and that has no room, is told with for how long and why") as check, ask("big-b", 4000) as first:
        wait_for("a request is inside", lambda: gateway.deployment("big-b/big-b")["in_flight"] == 1, 20)
        with ask("big-a", 10) as second:
            browser.go("/")
            browser.wait_text("big-a/big-a has no room, and requests wait for it, for ", 45, css="#problems-here")
            wait_for("it says why", lambda: len(browser.js("return [...document.querySelectorAll('#problems-here li .stack > div')].map((line) => line.textContent)")) == 3, 15)
            check.figure = browser.text("#problems-here li").replace("\n", " ")
            look_at = browser.axe(look.axe_script())
            expect(not look_at, "\n".join(look_at))
            browser.click("Why")
            browser.wait_text("1 request waits for it", css="#why")
            browser.go("/gpus")
            browser.wait_text("big-a/big-a", css="table[aria-label='waiting models']")
            second.kill()
        first.kill()
