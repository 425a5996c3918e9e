"""Changes by way of their review: drained, overtaken by someone else, undone; a session that ends meanwhile."""

import json
import subprocess

from browser.journey import filled
from checks.report import expect, wait_for

_FILE = """# Bo's, for the demo.
[instance]
name = "reviewed"
project = "research"
engine = "sim"

[[deployment]]
model = "stand/reviewed"
endpoint_name = "reviewed-model"
max_concurrent_requests = 4 # not more
[deployment.sim]
load = "100ms"
tokens_per_second = 20
"""
_ID = "reviewed/reviewed-model"


def check(report, browser, gateway):
    """Everything that may come between a change and its effect."""
    file = gateway.directory / "routes.d" / "reviewed.toml"
    gateway.route("reviewed", _FILE)
    browser.go("/")
    browser.wait_text("reviewed")
    _drained(report, browser, gateway)
    gateway.route("reviewed", _FILE)
    _overtaken(report, browser, gateway, file)
    _overtaken_text(report, browser, gateway)
    _ended(report, browser)
    _undone(report, browser, gateway, file)
    file.unlink()
    # What was refused is an error of the browser's console, and meant to be.
    refused = ("412", "401", "404")
    rest = [each for each in browser.complaints() if not any(f"status of {code}" in each for code in refused)]
    expect(not rest, "\n".join(rest))


def _changed(browser, label, value):
    """The form of the instance, with one value changed."""
    browser.go("/launch?edit=reviewed")
    filled(browser, "reviewed")
    browser.fill(label, value)
    browser.wait_text("Everything fits", css="#problems")
    browser.click("Review", kinds="#launch")


def _lines(browser, which=""):
    return browser.js("return ['del', 'ins'].map((tag) => [...[...document.querySelectorAll('dialog[open]')].at(-1)"
                      f".querySelectorAll(`.diff{which} ${{tag}}`)].map((line) => line.textContent))")


def _phase(gateway):
    return gateway.deployment(_ID)["phase"]


def _drained(report, browser, gateway):
    with report.check("review: apply and drain now replaces a worker though a request is inside, which finishes") as check:
        token = gateway.token("--workspace", "w1", "--project", "research")
        body = {"model": "reviewed-model", "stream": True, "max_tokens": 120, "ignore_eos": True, "messages": [{"role": "user", "content": "Hi"}]}
        with subprocess.Popen(
                ["curl", "-sN", "--max-time", "60", "--cacert", str(gateway.ca), f"{gateway.url}/v1/chat/completions", "-H", f"Authorization: Bearer {token}",
                 "-H", "Content-Type: application/json", "-d", json.dumps(body)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as stream:
            wait_for("a request is inside", lambda: gateway.deployment(_ID)["in_flight"] == 1, 20)
            _changed(browser, "Tokens per second", "500")
            browser.wait_text("once no request is inside (now 1)", css="dialog .review")
            browser.picture("review-drain")
            browser.click("Apply and drain now", kinds="dialog button")
            wait_for("it drains", lambda: _phase(gateway) == "draining", 10)
            answer = stream.stdout.read()
        expect(answer.rstrip().endswith("[DONE]"), answer[-300:])
        wait_for("its successor is ready", lambda: _phase(gateway) == "ready", 20)
        check.figure = f"{answer.count('data: ')} events of the request inside, then the next worker"


def _overtaken(report, browser, gateway, file):
    theirs = _FILE.replace("# Bo's, for the demo.", "# Ana's now.").replace("tokens_per_second = 20", "tokens_per_second = 30")
    with report.check("review: a file that someone edited meanwhile is refused in words; their change is shown, mine goes upon it, nothing is lost") as check:
        browser.go("/launch?edit=reviewed")
        filled(browser, "reviewed")
        browser.fill("Max Concurrent Requests", "8")
        browser.wait_text("Everything fits", css="#problems")
        gateway.route("reviewed", theirs)
        wait_for("theirs is in effect", lambda: "30" in json.dumps(_config(browser)), 20)
        browser.click("Review", kinds="#launch")
        browser.wait_text("Someone else changed the file meanwhile", css="dialog[open]")
        seen = _lines(browser)
        expect("+ tokens_per_second = 30" in seen[1] and not any("max_concurrent" in line for line in seen[0] + seen[1]), f"{seen}")
        browser.picture("overtaken")
        browser.theme("dark")
        browser.size(360, 740)
        browser.picture("overtaken-dark-360")
        browser.theme("light")
        browser.size(1440, 900)
        browser.click("Back", kinds="dialog button")
        expect(file.read_text(encoding="utf-8") == theirs, "Back wrote the file")
        expect(browser.value("Max Concurrent Requests") == "8", "what was typed is lost")
        browser.click("Review", kinds="#launch")
        browser.click("Review mine upon theirs", kinds="dialog button")
        browser.wait_find("dialog .review")
        seen = _lines(browser)
        expect(seen == [["- max_concurrent_requests = 4 # not more"], ["+ max_concurrent_requests = 8 # not more"]], f"{seen}")
        # Once more, between the review and its end.
        second = theirs.replace("Ana's", "Cy's")
        gateway.route("reviewed", second)
        browser.click("Apply", kinds="dialog button")
        browser.wait_text("Someone else changed the file meanwhile", css="dialog[open]")
        expect(file.read_text(encoding="utf-8") == second, "it was written over")
        browser.click("Review mine upon theirs", kinds="dialog button")
        browser.wait_find("dialog .review")
        browser.click("Apply", kinds="dialog button")
        browser.wait_path("/instances/reviewed")
        text = file.read_text(encoding="utf-8")
        expect(text == second.replace("= 4 #", "= 8 #"), text)
        check.figure = "both changes are in the file"


def _config(browser):
    return browser.driver.execute_async_script("fetch('/api/v1/instances/reviewed').then((r) => r.json()).then((one) => arguments[0](one.config))")


def _overtaken_text(report, browser, gateway):
    path = gateway.directory / "routes.d" / "texts.toml"
    first = '[route]\nname = "texts"\nproject = "research"\n[[upstream]]\nurl = "http://127.0.0.1:9"\n'
    with report.check("review: the same for a file that is edited as text"):
        gateway.route("texts", first)
        browser.go("/routes")
        browser.wait_text("texts")
        browser.fill("Filter routes", "texts")
        browser.click("More for texts")
        browser.click("Edit texts")
        browser.wait_find("dialog textarea")
        mine = first.replace("research", "demo")
        browser.fill("Route file (TOML)", mine)
        gateway.route("texts", f"# Ana's.\n{first}")
        browser.click("Review", kinds="dialog button")
        browser.wait_text("Someone else changed the file meanwhile", css="dialog[open]:last-of-type")
        expect(_lines(browser) == [[], ["+ # Ana's."]], f"{_lines(browser)}")
        browser.click("Back", kinds="dialog button")
        expect(browser.value("Route file (TOML)") == mine, "what was typed is lost")
        browser.click("Review", kinds="dialog button")
        browser.click("Review mine upon theirs", kinds="dialog button")
        browser.wait_find("dialog .review")
        expect(_lines(browser) == [["- # Ana's.", '- project = "research"'], ['+ project = "demo"']], f"{_lines(browser)}")
        browser.click("Apply", kinds="dialog button")
        wait_for("it is written", lambda: path.read_text(encoding="utf-8") == mine, 20)
        path.unlink()


def _ended(report, browser):
    with report.check("review: a session that ends in the middle of a form loses nothing that was typed"):
        browser.go("/launch?edit=reviewed")
        filled(browser, "reviewed")
        browser.fill("Max Concurrent Requests", "6")
        browser.wait_text("Everything fits", css="#problems")
        cookies = [each for each in browser.driver.execute_cdp_cmd("Network.getAllCookies", {})["cookies"] if each["name"].startswith("__Host-")]
        for each in cookies:
            browser.driver.execute_cdp_cmd("Network.deleteCookies", {"name": each["name"], "url": browser.base})
        browser.click("Review", kinds="#launch")
        browser.wait_text("Your session has ended", css="#notices")
        expect(browser.path == "/launch" and browser.value("Max Concurrent Requests") == "6", "the form is gone")
        # As a login in another tab does.
        for each in cookies:
            browser.driver.execute_cdp_cmd("Network.setCookie", {"name": each["name"], "value": each["value"], "url": browser.base, "secure": True, "httpOnly": True, "path": "/", "sameSite": "Strict"})
        browser.fill("Max Concurrent Requests", "7")
        browser.wait_text("Everything fits", css="#problems")
        browser.click("Review", kinds="#launch")
        browser.wait_find("dialog .review")
        expect(browser.js("return document.querySelector('#ended').hidden"), "it still says that the session ended")
        browser.click("Apply", kinds="dialog button")
        browser.wait_path("/instances/reviewed")


def _undone(report, browser, gateway, file):
    with report.check("audit: the text of a change is shown, and undone by way of the review, comments and all") as check:
        gateway.route("reviewed", _FILE)
        wait_for("it is in effect", lambda: "20" in json.dumps(_config(browser)["deployment"]), 20)
        _changed(browser, "Max Concurrent Requests", "9")
        browser.wait_find("dialog .review")
        browser.click("Apply", kinds="dialog button")
        browser.wait_path("/instances/reviewed")
        expect("= 9 #" in file.read_text(encoding="utf-8"), "it was not changed")
        browser.go("/activity?tab=changes")
        browser.click("Text of the change of instance:reviewed")
        browser.wait_find("dialog .diff")
        expect(_lines(browser)[1] == ["+ max_concurrent_requests = 9 # not more"], f"{_lines(browser)}")
        browser.picture("audit-text")
        browser.click("Undo", kinds="dialog button")
        browser.wait_find("dialog .review")
        check.figure = browser.text("dialog .review > section:last-child").replace("\n", " ")
        browser.click("Apply", kinds="dialog button")
        wait_for("the file is as it was", lambda: file.read_text(encoding="utf-8") == _FILE, 20)
    with report.check("audit: a deleted instance comes back, as it was"):
        browser.go("/instances/reviewed")
        browser.click("Delete", within=".head")
        browser.click("Delete", kinds="dialog button")
        # The page goes on once the gateway has answered; a call that is left halfway is not told.
        browser.wait_path("/")
        wait_for("it is gone", lambda: not file.exists(), 20)
        browser.go("/activity?tab=changes")
        browser.click("Text of the delete of instance:reviewed")
        browser.click("Undo", kinds="dialog button")
        browser.wait_find("dialog .review")
        browser.click("Apply", kinds="dialog button")
        wait_for("it is back", lambda: file.exists() and file.read_text(encoding="utf-8") == _FILE, 20)
