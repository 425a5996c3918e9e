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
#: A laptop, a phone, a wall.
SIZES = ((1440, 900), (360, 740), (3840, 2160))
LOGIN = ("login", "/login", "form")


def axe_script():
    """The text of axe-core."""
    path = Path(os.environ.get("TIDEGATE_CI_NODE", ".")) / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text(encoding="utf-8")


def _open(browser, page, theme):
    name, address, drawn = page
    browser.go(f"{address}{'&' if '?' in address else '?'}theme={theme}")
    wait_for(f"{name} is drawn ({address})", lambda: browser.find(drawn), 30)


def accessible(report, browser, pages=PAGES):
    """WCAG A and AA by axe-core, in both themes, with everything unfolded."""
    script = axe_script()
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


def pictures(report, browser, pages=PAGES, whole=True):
    """Pictures of each page in both themes, from a phone to 4K; none is wider than its window.

    Not `whole`: a phone and 4K in one theme each.
    """
    wide = []
    left_out = set() if whole else {("light", SIZES[1]), ("dark", SIZES[2])}
    for page in pages:
        browser.size(*SIZES[0])
        _open(browser, page, "light")
        for theme in ("light", "dark"):
            browser.theme(theme)
            for width, height in SIZES:
                if (theme, (width, height)) in left_out:
                    continue
                browser.size(width, height)
                over = browser.js("return document.documentElement.scrollWidth - innerWidth")
                if over > 0:
                    wide.append(f"{page[0]} at {width}: {over} px too wide")
                browser.picture(f"{page[0]}-{theme}-{width}")
    names = ", ".join(page[0] for page in pages)
    widths = ", ".join(str(width) for width, _ in SIZES)
    with report.check(f"pictures: no page is wider than its window at {widths} px ({names})") as check:
        expect(not wide, "\n".join(wide))
        check.figure = f"{(2 * len(SIZES) - len(left_out)) * len(pages)} in {browser.out.name}"
    browser.size(*SIZES[0])


#: Work of the page's own thread that everything else is held against.
_YARDSTICK = """
    const words = Array.from({ length: 60000 }, (_, n) => `${(n * 7919) % 60000}`);
    let sum = 0;
    for (let round = 0; round < 8; round += 1) {
      sum += JSON.parse(JSON.stringify([...words].sort())).length + new Set(words).size;
    }
    return sum;
"""


def fast(report, browser, page, plots_min, each_max):
    """What an instance page with two days of history loads, cold, and what its plots cost.

    In time of the page's own thread, as a ratio to work of the same thread: the clock, and what
    a processor does in a second, are for whoever else works.
    """
    with report.check(f"load: an instance page with two days in it, cold: {each_max} yardsticks for each plot, below 2 MB") as check:
        driver = browser.driver
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

        def used():
            """Seconds since the page was navigated to."""
            metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            return next(each["value"] for each in metrics if each["name"] == "TaskDuration")

        took = []
        for _ in range(3):
            driver.execute_cdp_cmd("Network.clearBrowserCache", {})
            browser.go(f"{page}?range=172800")
            marks = "return performance.getEntriesByName('tidegate-plot').map((mark) => mark.startTime)"
            seen = wait_for(f"{plots_min} plots are drawn", lambda: len(browser.js(marks)) >= plots_min and browser.js(marks), 30)
            cost, plots = used(), len(browser.js(marks))
            expect(browser.js(_YARDSTICK) > 0, "the yardstick did nothing")
            yardstick = used() - cost
            took.append((cost / yardstick / plots, plots, cost, yardstick, seen[plots_min - 1]))
        each, plots, cost, yardstick, after = min(took)
        bytes_, requests = browser.js(
            """
            const all = [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')];
            return [all.reduce((sum, each) => sum + each.transferSize, 0), all.length];
            """)
        points = browser.js("return [...document.querySelectorAll('.plot')].reduce((sum, each) => sum + Number(each.dataset.points ?? 0), 0)")
        check.figure = (f"{bytes_ / 1e6:.2f} MB in {requests} answers, {plots} plots for {each:.2f} yardsticks each ({cost:.2f} s, one is {yardstick:.2f} s), "
                        f"{plots_min} after {after / 1000:.2f} s, {points} points")
        expect(bytes_ < 2_000_000, f"{bytes_} bytes")
        expect(points > 300 * plots_min, f"{points} points: that is not two days")
        expect(0 < each < each_max, f"a plot cost as much as {each} yardsticks")
