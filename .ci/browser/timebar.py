"""The time bar: one range for all plots of a page, a moment in all of them, what happened then."""

import time

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from browser import look
from browser.chromium import Browser
from browser.home import GPU, big
from checks.report import expect, wait_for
from checks.tidegate import Tidegate

_BROKEN = """[instance]
name = "broken"
project = "research"
engine = "vllm"
[[deployment]]
model = "/nonexistent/model"
endpoint_name = "broken"
start = "boot"
"""

_CPU = '.plot[aria-label="CPU of the Host"]'
#: The axis of each plot that is drawn.
_AXES = "return [...document.querySelectorAll('.plot .canvas')].filter((each) => each.layout).map((each) => each.layout.xaxis.range.join())"
#: The line of the moment in each plot that is drawn: how far to the right, of its place.
_CROSSES = ("return [...document.querySelectorAll('.plot .canvas')].filter((each) => each.layout)"
            ".map((each) => { const cross = each.querySelector('.cross'); return cross && !cross.hidden ? Number.parseFloat(cross.style.left) : null; })")
_ON = "const on = document.activeElement; return (on.getAttribute('aria-label') ?? on.textContent ?? '').trim()"
_SAID = "return document.querySelector('[aria-label=\"Moment in the plots\"]').getAttribute('aria-valuetext')"


def _tab_to(browser, label, most=80, back=False):
    """Goes on by Tab until the focus is on what is called this."""
    for _ in range(most):
        if label in browser.js(_ON):
            return
        if back:
            ActionChains(browser.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        else:
            browser.keys(Keys.TAB)
    raise AssertionError(f"Tab does not lead to {label!r}; it is at {browser.js(_ON)!r}")


def _query(browser):
    return browser.js("return Object.fromEntries(new URLSearchParams(location.search))")


def _length(browser):
    query = _query(browser)
    return int(query["to"]) - int(query["from"])


def _drawn(browser, plots=4):
    wait_for("plots are drawn", lambda: len(browser.js(_AXES)) >= plots, 40)


def check(report, out):
    """On a gateway in which models start, leave for each other, fail and are changed."""
    with Tidegate(GPU) as gateway:
        for file in (gateway.directory / "routes.d").glob("*.toml"):
            file.unlink()
        for name in ("big-a", "big-b"):
            gateway.route(name, big(name))
        gateway.route("broken", _BROKEN)
        gateway.start("--stop-workers")
        gateway.run("start", "big-a")
        gateway.wait_shown("big-a/big-a", "status", "idle", 20)
        gateway.run("start", "big-b")
        gateway.wait_shown("big-b/big-b", "status", "idle", 20)
        with Browser(f"https://127.0.0.1:{gateway.admin_port}", out) as browser:
            link = next(word for word in gateway.run("login").stdout.split() if "code=" in word)
            browser.go(link[link.index("/login"):])
            browser.click("Log in")
            browser.wait_path("/")
            _edited(browser)
            _marks(report, browser)
            _mouse(report, browser)
            _keys(report, browser)
            _live(report, browser)
            _nonsense(report, browser)
            _looks(report, browser)
            _restart(report, browser, gateway)
            _clock(report, browser)
            with report.check("time bar: no script failed, and nothing broke the page's policy"):
                complaints = [each for each in browser.complaints() if "Failed to load resource" not in each and "net::ERR" not in each]
                expect(not complaints, "\n".join(complaints[:10]))


def _edited(browser):
    browser.wait_text("Launch New")
    text = big("big-a").replace("[deployment.sim]", "max_concurrent_requests = 7\n[deployment.sim]")
    failed = browser.driver.execute_async_script(
        """
        const [text, done] = arguments;
        import(document.body.dataset.files + "/lib/api.js")
          .then(({ call }) => call("PUT", "instances/big-a", { body: text, type: "application/toml" }))
          .then(() => done(""), (error) => done(String(error)));
        """, text)
    expect(not failed, failed)


def _marks(report, browser):
    with report.check("time bar: starts, evictions, failures and edits are marked in each plot, and told with their reasons without a pointer") as check:
        browser.go("/gpus?range=900")
        _drawn(browser)
        wait_for("what happened", lambda: "What happened: " in browser.text("details.happened > summary") and "loading" not in browser.text("details.happened > summary"), 20)
        check.figure = browser.text("details.happened > summary")
        kinds = ("start", "eviction", "failure", "edit")
        expect(all(kind in check.figure for kind in kinds), check.figure)
        browser.js("document.querySelector('details.happened').open = true")
        said = browser.text(".marks")
        for words in ("needed by big-b/big-b", "asked by an operator", "failed", "max_concurrent_requests", "one-time link"):
            expect(words in said, f"{words!r} is not in {said[:800]!r}")
        counts = browser.js("return [...document.querySelectorAll('.plot .canvas')].filter((each) => each.layout).map((each) => each.querySelectorAll('.overlay .mark').length)")
        expect(counts and min(counts) >= len(kinds), f"marks in the plots: {counts}")
        expect(browser.js("return [...document.querySelectorAll('.overlay .mark')].every((each) => each.closest('[aria-hidden=true]'))"), "marks are read out in each plot")
    with report.check("time bar: of an instance only its own is marked"):
        browser.go("/instances/big-b?range=900")
        _drawn(browser, 1)
        wait_for("its start", lambda: "start" in browser.text("details.happened > summary"), 20)
        browser.js("[...document.querySelectorAll('details.happened')].forEach((each) => { each.open = true; })")
        expect("max_concurrent_requests" not in browser.text(".marks") and "broken" not in browser.text(".marks"), browser.text(".marks"))


def _mouse(report, browser):
    with report.check("time bar, mouse: the moment under the pointer is shown in all plots, with what happened then; it goes with the pointer") as check:
        browser.go("/gpus?range=900")
        _drawn(browser)
        browser.js("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", _CPU)
        area = browser.wait_find(f"{_CPU} .nsewdrag")
        edge = area.size["width"] // 2
        ActionChains(browser.driver).move_to_element_with_offset(area, edge - 20, 0).perform()
        crosses = wait_for("a line in each plot", lambda: None not in browser.js(_CROSSES) and browser.js(_CROSSES), 10)
        expect(max(crosses) - min(crosses) < 0.01 and 50 < crosses[0] < 100, f"{crosses}")
        place = browser.js("const mark = document.querySelector(arguments[0] + ' .overlay .mark.eviction'); return Number.parseFloat(mark.style.left) / 100", _CPU)
        ActionChains(browser.driver).move_to_element_with_offset(area, round((place - 0.5) * area.size["width"]), 0).perform()
        wait_for("the reason", lambda: "needed by big-b/big-b" in browser.text(".timebar .at") or "start of" in browser.text(".timebar .at"), 10)
        check.figure = browser.text(".timebar .at")[:120]
        ActionChains(browser.driver).move_to_element(browser.find("h1")).perform()
        wait_for("no line", lambda: set(browser.js(_CROSSES)) == {None}, 10)
    with report.check("time bar, mouse: a drag zooms all plots and asks for finer points; Back goes back") as check:
        browser.go("/gpus?range=21600")
        _drawn(browser)
        wait_for("how fine", lambda: "a point each 1 min" in browser.text(".timebar .what"), 20)
        before = browser.js(_AXES)
        area = browser.wait_find(f"{_CPU} .nsewdrag")
        browser.js("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", _CPU)
        ActionChains(browser.driver).move_to_element_with_offset(area, area.size["width"] // 2 - 60, 0).click_and_hold().move_by_offset(75, 0).release().perform()
        wait_for("finer points", lambda: "a point each 10 s" in browser.text(".timebar .what") or "a point each 20 s" in browser.text(".timebar .what"), 20)
        wait_for("one axis", lambda: len(set(browser.js(_AXES))) == 1 and browser.js(_AXES) != before, 20)
        check.figure = f"{_length(browser)} s, {browser.text('.timebar .what')}"
        browser.driver.back()
        wait_for("the range of before", lambda: "from" not in _query(browser) and "a point each 1 min" in browser.text(".timebar .what"), 20)


def _keys(report, browser):
    with report.check("time bar, keyboard alone: zoom, move, a moment, what happened then, and back to live") as check:
        browser.go("/gpus?range=900")
        _drawn(browser)
        wait_for("what happened", lambda: "eviction" in browser.text("details.happened > summary"), 20)
        browser.js("document.querySelector('.brand').focus()")
        _tab_to(browser, "Zoom in")
        browser.keys(Keys.ENTER)
        wait_for("half of it", lambda: "from" in _query(browser) and 449 <= _length(browser) <= 452, 10)
        _tab_to(browser, "Earlier", back=True)
        before = int(_query(browser)["from"])
        browser.keys(Keys.ENTER)
        wait_for("earlier", lambda: int(_query(browser)["from"]) < before - 440, 10)
        _tab_to(browser, "Live")
        browser.keys(Keys.SPACE)
        wait_for("live", lambda: "from" not in _query(browser), 10)
        _tab_to(browser, "Moment in the plots")
        expect(browser.js(_SAID) == "no moment", browser.js(_SAID))
        browser.keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
        wait_for("a line in each plot", lambda: None not in browser.js(_CROSSES), 10)
        expect(browser.js(_SAID) != "no moment", browser.js(_SAID))
        browser.keys(Keys.ESCAPE)
        wait_for("no line", lambda: set(browser.js(_CROSSES)) == {None}, 10)
        _tab_to(browser, "What happened")
        browser.keys(Keys.ENTER)
        wait_for("the list", lambda: browser.js("return document.querySelector('details.happened').open"), 5)
        _tab_to(browser, "show this eviction in the plots")
        browser.keys(Keys.ENTER)
        wait_for("it is read where it is shown", lambda: "needed by big-b/big-b" in browser.js(_SAID), 10)
        expect(browser.js(_ON) == "Moment in the plots", browser.js(_ON))
        check.figure = browser.js(_SAID)[:140]
    with report.check("time bar, keyboard alone: a range of one's own; one that is none is told of"):
        _tab_to(browser, "Custom", back=True)
        browser.keys(Keys.ENTER)
        browser.wait_find("dialog[open] input[type=datetime-local]")
        write = ("const at = new Date(Date.now() - arguments[1] * 1000); at.setMinutes(at.getMinutes() - at.getTimezoneOffset());"
                 "const input = [...document.querySelectorAll('dialog input')][arguments[0]]; input.value = at.toISOString().slice(0, 19); input.focus()")
        browser.js(write, 0, 600)
        browser.js(write, 1, 1200)
        browser.keys(Keys.ENTER)
        browser.wait_text("is not before", css="dialog [role=alert]")
        browser.js(write, 1, 300)
        browser.keys(Keys.ENTER)
        wait_for("it is shown", lambda: "from" in _query(browser) and 298 <= _length(browser) <= 302, 10)


def _live(report, browser):
    with report.check("time bar: live moves on; held, it stays, also over a reload; what is compared stays too") as check:
        browser.go("/gpus?range=900&compare=day")
        _drawn(browser)
        wait_for("nothing was there a day ago", lambda: "nothing was recorded a day earlier" in browser.text(".timebar .what"), 20)
        first = browser.js(_AXES)[0]
        wait_for("it moves on", lambda: browser.js(_AXES)[0] != first, 25)
        browser.click("Live")
        wait_for("it is held", lambda: "from" in _query(browser), 10)
        held = _query(browser)
        expect(held["compare"] == "day", f"{held}")
        wait_for("plots hold it", lambda: len(set(browser.js(_AXES))) == 1, 10)
        axes = browser.js(_AXES)
        browser.driver.refresh()
        _drawn(browser)
        wait_for("the same span", lambda: browser.js(_AXES) == axes, 20)
        expect(browser.value("Compare with") == "day", f"{browser.value('Compare with')}")
        began = time.monotonic()
        wait_for("a refresh later", lambda: time.monotonic() - began > 12, 20)
        expect(browser.js(_AXES) == axes and _query(browser) == held, f"{browser.js(_AXES)}")
        check.figure = f"{held['from']} to {held['to']}"


def _nonsense(report, browser):
    wide = "\U0001f600" * 256
    now = int(time.time())
    with report.check("time bar: what an address says wrongly is told in words, and the rest is shown") as check:
        for query, words in (
                ("from=yesterday&to=2026-01-01", "from “yesterday” is no time"),
                (f"from={now - 60}", "to is missing"),
                (f"from={now}&to={now - 60}", "is not before"),
                (f"from={now + 7200}&to={now + 9000}", "is yet to come"),
                ("from=0&to=100", "more than 90 days ago"),
                ("range=-1", "range “-1” is no number of seconds"),
                ("compare=always", "compare “always” is none of before, day, week"),
                (f"from={wide}&to={wide}", "is no time")):
            browser.go(f"/gpus?{query}")
            browser.wait_text(words, css=".timebar [role=alert]")
            try:
                _drawn(browser)
            except AssertionError as error:
                raise AssertionError(f"{query[:40]}: {error}, {browser.text('.plots')[:300]!r}") from None
        browser.size(360, 740)
        expect(browser.js("return document.documentElement.scrollWidth <= innerWidth"), "it is wider than a phone")
        browser.size(1440, 900)
        check.figure = browser.text(".timebar [role=alert]")[:100]


def _looks(report, browser):
    look.pictures(report, browser, [("timebar", "/gpus?range=900&compare=before", ".plot[data-points]")])
    with report.check("time bar: axe-core finds nothing with the list open and a moment chosen, in both themes, from a phone to a laptop") as check:
        found = []
        for width in (360, 1440):
            browser.size(width, 740)
            for theme in ("light", "dark"):
                browser.go(f"/gpus?range=900&theme={theme}")
                _drawn(browser, 1)
                browser.theme(theme)
                browser.js("document.querySelector('details.happened').open = true; const slider = document.querySelector('[type=range]'); slider.value = Number(slider.max) - 60; slider.dispatchEvent(new Event('input'))")
                browser.picture(f"timebar-open-{theme}-{width}")
                browser.js("document.querySelector('.plots').scrollIntoView({ block: 'center' })")
                wait_for("the bar sticks below the head, or lies above", lambda: width < 500 or browser.js(
                    "return Math.abs(document.querySelector('.timebar').getBoundingClientRect().top - document.querySelector('.top').offsetHeight) < 10"), 5)
                browser.driver.save_screenshot(str(browser.out / f"timebar-stuck-{theme}-{width}.png"))
                found += [f"{theme}, {width}: {each}" for each in browser.axe(look.axe_script())]
        browser.size(1440, 900)
        expect(not found, "\n".join(found))
        check.figure = "4 times"


def _restart(report, browser, gateway):
    with report.check("time bar: a gateway that restarts under the page is told of, the range and what happened before stay, and from when on it is known is said") as check:
        browser.go("/gpus?range=900")
        _drawn(browser)
        browser.click("Live")
        wait_for("it is held", lambda: "from" in _query(browser), 10)
        held = _query(browser)
        gateway.stop()
        browser.wait_text("The gateway can't be reached", 40, css="#notices")
        gateway.start("--stop-workers")
        wait_for("it is back", lambda: "can't be reached" not in browser.text("#notices"), 60)
        browser.js("document.querySelector('details.happened').open = true")
        browser.wait_text("are not known any more", 40, css="details.happened")
        expect(_query(browser) == held, f"{_query(browser)}")
        expect("1 eviction" in browser.text("details.happened > summary") and "1 edit" in browser.text("details.happened > summary"), browser.text("details.happened > summary"))
        check.figure = browser.text("details.happened .quiet.small")


def _clock(report, browser):
    with report.check("time bar: where the clock of the browser is wrong, plots go by the gateway's, and that is said") as check:
        shift = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {
            "source": "{ const real = Date.now.bind(Date); Date.now = () => real() - 7384000; }"})["identifier"]
        browser.go("/gpus?range=900")
        _drawn(browser)
        browser.wait_text("The clock of this browser is 2 h 3 min behind the gateway's", css=".timebar [role=alert]")
        until = browser.js("return performance.getEntriesByType('resource').filter((each) => each.name.includes('/series?')).map((each) => Number(new URL(each.name).searchParams.get('until'))).at(-1)")
        expect(abs(until - time.time()) < 30, f"asked up to {until}, and it is {time.time()}")
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": shift})
        check.figure = browser.text(".timebar [role=alert]")


def compared(report, browser):
    """On an instance with two days of history."""
    with report.check("time bar: what was a day earlier lies dotted under what is, with its values, in words too") as check:
        browser.go("/instances/team-llms?range=3600&compare=day")
        browser.wait_find(".plots")
        browser.js("document.querySelector('.plots').scrollIntoView()")
        lines = ("return document.querySelector('.plot[aria-label=\"Latency\"] .canvas')?.data?.filter((each) => each.mode === 'lines')"
                 ".map((each) => [each.name, each.line.dash, each.x.length]) ?? []")
        seen = wait_for("six lines", lambda: len(browser.js(lines)) == 6 and browser.js(lines), 40)
        expect([each for each in seen if each[0] == "p95, a day earlier" and each[1] == "dot" and each[2] > 100], f"{seen}")
        caption = browser.text('.plot[aria-label="Latency"] .now')
        expect("(a day earlier " in caption, caption)
        said = browser.js("return document.querySelector('.plot[aria-label=\"Latency\"] .canvas').getAttribute('aria-label')")
        expect("a day earlier: p50" in said, said)
        check.figure = caption.replace("\n", " ")
