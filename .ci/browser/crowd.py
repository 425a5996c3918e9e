"""Many instances on one page, and two gateways on one host."""

import time

from browser import faults, look
from browser.chromium import Browser
from checks.report import expect, wait_for
from checks.tidegate import Tidegate

INSTANCES = 200
#: Bytes of a minute in which nothing happens.
IDLE_BYTES_MAX = 30_000
ROW_PIXELS_MAX = 40


def _instance(number):
    name = f"model-{number:03d}"
    return f"""# The {number}th.
[instance]
name = "{name}"
project = "research"
engine = "sim"
[[deployment]]
model = "stand/{name}"
"""


def _log_in(browser, gateway):
    browser.base = f"https://127.0.0.1:{gateway.admin_port}"
    link = next(word for word in gateway.run("login").stdout.split() if "code=" in word)
    browser.go(link[link.index("/login"):])
    browser.click("Log in")
    browser.wait_path("/")


def _received(browser):
    """Bytes of answers since the page began, with a guess of 300 for each head, as the browser counts them."""
    return browser.js(
        "return performance.getEntriesByType('resource').filter((each) => each.name.includes('/api/')).reduce((sum, each) => sum + each.transferSize, 0)")


def check(report, out):
    """What an idle list costs, how much of it is seen at once; sessions side by side."""
    with Tidegate('[gpus]\nsource = "simulated"\nsimulated = [{ memory = "80GiB" }]\n') as gateway, \
            Tidegate('[gpus]\nsource = "none"\n') as neighbour:
        for number in range(INSTANCES):
            gateway.route(f"model-{number:03d}", _instance(number))
        gateway.start("--stop-workers")
        neighbour.start()
        with Browser(f"https://127.0.0.1:{gateway.admin_port}", out) as browser:
            _log_in(browser, gateway)
            wait_for("all rows", lambda: browser.js("return document.querySelectorAll('tbody tr').length") == INSTANCES, 30)
            _idle(report, browser)
            _news(report, browser, gateway)
            _dense(report, browser)
            faults.heads(report, browser)
            look.pictures(report, browser, [("crowd", "/", "td")], whole=False)
            _neighbours(report, browser, gateway, neighbour)


def _idle(report, browser):
    with report.check(f"load: {INSTANCES} instances in which nothing happens, watched for 20 s: at most {IDLE_BYTES_MAX} bytes a minute") as check:
        first = _received(browser)
        began = time.monotonic()
        wait_for("20 s have passed", lambda: time.monotonic() - began > 20, 30)
        minute = (_received(browser) - first) * 60 / (time.monotonic() - began)
        check.figure = f"{first} bytes at first, then {minute:.0f} a minute"
        expect(0 < minute <= IDLE_BYTES_MAX, check.figure)


def _news(report, browser, gateway):
    with report.check("load: a model that starts is seen, and only its row is sent") as check:
        before = _received(browser)
        gateway.run("start", "model-007")
        row = "[...document.querySelectorAll('tbody tr')].find((row) => row.textContent.includes('model-007')).textContent"
        wait_for("its row says so", lambda: "idle" in browser.js(f"return {row}"), 20)
        check.figure = f"{_received(browser) - before} bytes"
        expect(browser.js("return document.querySelectorAll('tbody tr').length") == INSTANCES, "rows were lost")
        expect(_received(browser) - before < 30_000, check.figure)
        gateway.run("stop", "model-007")
        wait_for("it is stopped", lambda: "stopped" in browser.js(f"return {row}"), 20)


def _dense(report, browser):
    with report.check(f"density: the median row of the list is at most {ROW_PIXELS_MAX} px high") as check:
        heights = sorted(browser.js("return [...document.querySelectorAll('tbody tr')].map((row) => row.getBoundingClientRect().height)"))
        check.figure = f"{heights[len(heights) // 2]:.0f} px"
        expect(heights[len(heights) // 2] <= ROW_PIXELS_MAX, check.figure)
    with report.check("density: what is done more rarely is in a menu, by mouse and by keys"):
        browser.click("More for model-003")
        browser.wait_find(".menu:popover-open")
        expect(browser.js("const box = document.querySelector('.menu:popover-open').getBoundingClientRect(); return box.left >= 0 && box.right <= innerWidth && box.bottom <= innerHeight"),
               "the menu is out of sight")
        browser.click("Delete model-003")
        browser.wait_text("Delete model-003?")
        browser.click("Cancel", kinds="dialog button")


def _neighbours(report, browser, gateway, neighbour):
    with report.check("login: two gateways on one host leave each other's sessions alone") as check:
        _log_in(browser, neighbour)
        cookies = browser.driver.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]
        own = sorted(each["name"] for each in cookies if each["name"].startswith("__Host-tidegate"))
        expect(len(own) == 2, f"the cookies are {own}")
        check.figure = ", ".join(own)
        for each in (gateway, neighbour):
            browser.base = f"https://127.0.0.1:{each.admin_port}"
            browser.go("/sessions")
            browser.wait_text("this one")
        browser.click("Log out")
        browser.wait_path("/login")
        browser.base = f"https://127.0.0.1:{gateway.admin_port}"
        browser.go("/sessions")
        browser.wait_text("this one")
