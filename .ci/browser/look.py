"""Every page as it looks, light and dark, wide and narrow; and whether everyone can use it."""

import os
from pathlib import Path

from checks.report import expect, wait_for

#: Name of the picture, address, and what is there once it is drawn.
PAGES = (
    ("instances", "/", "td"),
    ("instance", "/instances/from-form", ".plot"),
    ("console", "/instances/from-form?tab=console", ".console > div"),
    ("events", "/instances/from-form?tab=events", "#panel-events td"),
    ("configuration", "/instances/from-form?tab=configuration", "#panel-configuration .code"),
    ("launch", "/launch?clone=from-form", "#preview .code"),
    ("endpoints", "/endpoints", "#panel-active td, #panel-active .empty"),
    ("gpus", "/gpus", ".plot"),
    ("routes", "/routes", "td"),
    ("tokens", "/tokens", "td"),
    ("activity", "/activity?tab=changes", "#panel-changes td"),
    ("sessions", "/sessions", "td"),
)
LOGIN = ("login", "/login", "form")


def _axe():
    path = Path(os.environ.get("TIDEGATE_CI_NODE", ".")) / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text(encoding="utf-8")


def _open(browser, page, theme):
    name, address, drawn = page
    browser.go(f"{address}{'&' if '?' in address else '?'}theme={theme}")
    wait_for(f"{name} is drawn ({address})", lambda: browser.find(drawn), 30)


def accessible(report, browser, pages=PAGES):
    """WCAG A and AA by axe-core, in both themes, with everything unfolded."""
    script = _axe()
    found = []
    for theme in ("light", "dark"):
        for page in pages:
            _open(browser, page, theme)
            browser.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            found += [f"{page[0]}, {theme}: {each}" for each in browser.axe(script)]
    names = ", ".join(page[0] for page in pages)
    with report.check(f"accessibility: axe-core finds nothing against WCAG 2.2 AA ({names}; light and dark)") as check:
        # That it would find something.
        browser.js("document.querySelector('main').append(Object.assign(document.createElement('img'), { id: 'control' }))")
        expect(any("image-alt" in each for each in browser.axe(script)), "axe-core does not see an image without text")
        browser.js("document.querySelector('#control').remove()")
        expect(not found, "\n".join(found))
        check.figure = f"{len(pages)} pages twice"


def pictures(report, browser, pages=PAGES):
    """Pictures of each page; none is wider than its window."""
    wide = []
    for width, height in ((1440, 900), (360, 740)):
        browser.size(width, height)
        for theme in ("light", "dark"):
            for page in pages:
                _open(browser, page, theme)
                over = browser.js("return document.documentElement.scrollWidth - innerWidth")
                if over > 0:
                    wide.append(f"{page[0]} at {width}: {over} px too wide")
                browser.picture(f"{page[0]}-{theme}-{width}")
    names = ", ".join(page[0] for page in pages)
    with report.check(f"pictures: no page is wider than its window at 1440 and 360 px ({names})") as check:
        expect(not wide, "\n".join(wide))
        check.figure = f"{4 * len(pages)} in {browser.out.name}"
    browser.size(1440, 900)


def fast(report, browser):
    """What the instance page loads, cold, and how soon a plot is there."""
    with report.check("load: the instance page, cold, is below 2 MB") as check:
        driver = browser.driver
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        browser.go("/instances/from-form?range=172800")
        millis = wait_for("a plot is drawn", lambda: browser.js(
            "return performance.getEntriesByName('tidegate-plot')[0]?.startTime ?? 0"), 30)
        bytes_ = browser.js(
            "return [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')].reduce((sum, each) => sum + each.transferSize, 0)")
        expect(bytes_ < 2_000_000, f"{bytes_} bytes")
        check.figure = f"{bytes_ / 1e6:.2f} MB, first plot after {millis / 1000:.2f} s"
