"""Small things that once misled: heads out of sight, times without zone, names without person."""

import ssl
import urllib.parse
import urllib.request

from selenium.webdriver.common.keys import Keys

from checks.report import expect, wait_for

#: Whether each of these is within the window.
_SEEN = """
return arguments[0].filter((css) => [...document.querySelectorAll(css)].some((node) => {
  const box = node.getBoundingClientRect();
  return !box.width || box.left < 0 || box.right > innerWidth || box.top < 0 || box.bottom > innerHeight;
}));
"""


def heads(report, browser):
    """Of a long list, and of one that is wider than its place."""
    with report.check("tables: heads stay in sight below the bar, also of a table that is wider than its place") as check:
        browser.go("/")
        browser.wait_find("tbody tr:nth-child(100)")
        browser.js("scrollTo(0, document.documentElement.scrollHeight)")
        place = "const head = document.querySelector('thead th').getBoundingClientRect(); return [head.top, document.querySelector('.top').offsetHeight, innerHeight]"
        wait_for("the head is below the bar", lambda: abs(browser.js(place)[0] - browser.js(place)[1]) < 2, 5)
        browser.size(760, 700)
        wait_for("the table scrolls in itself", lambda: browser.js("return !document.querySelector('.scroll').matches('.fits')"), 10)
        browser.js("const box = document.querySelector('.scroll'); scrollTo(0, 0); box.scrollTo(200, box.scrollHeight); box.scrollIntoView()")
        inner = browser.js("const box = document.querySelector('.scroll'), head = box.querySelector('thead th'); return [head.getBoundingClientRect().top - box.getBoundingClientRect().top, box.scrollTop, box.scrollLeft]")
        expect(abs(inner[0]) < 3 and inner[1] > 1000 and inner[2] > 0, f"{inner}")
        browser.size(1440, 900)
        check.figure = f"{inner[1]:.0f} px down"


def console(report, browser):
    """Lines are the server's, and their times too."""
    with report.check("console: says whose times lines bear, where this browser is elsewhere"):
        browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
        browser.go("/instances/from-form?tab=console")
        browser.wait_text("Lines bear the times of the server's clock, UTC", css="#panel-console")
        browser.wait_text("all else on this page is in UTC+9", css="#panel-console")
        browser.wait_text("those of this browser, UTC+9", css="footer")
        browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})
    with report.check("console: hits are counted and stepped through, by buttons and by Enter") as check:
        browser.wait_find(".console > div")
        browser.fill("Search the console", "o")
        browser.wait_text("1 of ", css="#panel-console .actions")
        check.figure = browser.text("#panel-console .actions [role=status]")
        browser.keys(Keys.ENTER)
        browser.wait_text("2 of ", css="#panel-console .actions")
        expect(browser.js("return document.querySelectorAll('.console .at').length") == 1, "no one line is marked")
        browser.click("Previous hit")
        browser.wait_text("1 of ", css="#panel-console .actions")


def console_of_several(report, browser):
    """An instance of three models."""
    with report.check("console: the lines of one of several models alone") as check:
        browser.go("/instances/team-llms?tab=console")
        lines = "return [...document.querySelectorAll('.console > div')].map((line) => line.textContent)"
        wait_for("lines of both", lambda: {"[chat-large]", "[chat-small]"} <= {line.split(" ")[0] for line in browser.js(lines)}, 20)
        browser.fill("Whose lines", "chat-small")
        wait_for("lines of one, which need no name", lambda: browser.js(lines) and not any(line.startswith("[chat-") for line in browser.js(lines)), 20)
        check.figure = f"{len(browser.js(lines))} lines"


def shades(report, browser):
    """Two that share a GPU."""
    with report.check("GPUs: each holder has a colour of its own and says who it is") as check:
        browser.go("/gpus")
        browser.wait_find(".bar.tall i[title]")
        seen = browser.js("return [...document.querySelectorAll('.bar.tall i[class*=shade-]')].map((part) => [part.title.split(':')[0], getComputedStyle(part).backgroundColor])")
        names, colours = {name for name, _ in seen}, {colour for _, colour in seen}
        expect(len(names) > 1 and len(colours) > 1, f"{seen}")
        check.figure = f"{len(names)} holders, {len(colours)} colours"


def phone(report, browser):
    """360 px."""
    with report.check("phone: all pages are in the bar, and the button of the form is in sight"):
        browser.size(360, 740)
        browser.go("/launch")
        browser.wait_find("#launch")
        unseen = browser.js(_SEEN, [".nav a", "#launch"])
        expect(not unseen, f"out of sight: {unseen}")
        browser.size(1440, 900)


def young(report, browser):
    """A gateway that has just begun."""
    with report.check("plots: of what is some minutes old a quarter of an hour is shown, until one chooses"):
        browser.go("/instances/from-form")
        chosen = "return document.querySelector('[aria-label=\"Range of the plots\"] [aria-pressed=true]')?.textContent"
        wait_for("a quarter of an hour", lambda: browser.js(chosen) == "15 min", 20)
        browser.go("/instances/from-form?range=3600")
        browser.wait_find(".plot .main-svg", 30)
        expect(browser.js(chosen) == "1 h", f"{browser.js(chosen)}")


def values(report, browser):
    """What only shows a value."""
    with report.check("configuration: what can't be written does not look so"):
        browser.go("/instances/team-llms?tab=configuration")
        browser.wait_find("#panel-configuration .code")
        browser.js("document.querySelectorAll('#panel-configuration details').forEach((each) => { each.open = true; })")
        looks = browser.js("return [...document.querySelectorAll('#panel-configuration :is(input, select, textarea):not([type=checkbox])')].map((each) => getComputedStyle(each).borderTopStyle)")
        expect(looks and set(looks) == {"dashed"}, f"{looks}")


def people(report, browser, gateway):
    """Who made a link; an operator to themself."""
    with report.check("audit: who came by a link is told with who made the link"):
        browser.go("/sessions")
        browser.click("Make a login link")
        link = browser.wait_find(".copyable code").text
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)["code"][0]
        request = urllib.request.Request(f"{browser.base}/api/v1/session", data=f'{{"code": "{code}"}}'.encode(), headers={
            "content-type": "application/json", "origin": browser.base})
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=gateway.ca), timeout=10) as answer:
            expect(answer.status == 200, f"{answer.status}")
        browser.go("/activity?tab=changes")
        browser.wait_text("one-time link made by the person of the test", css="#panel-changes")
        browser.go("/sessions")
        browser.wait_text("one-time link made by the person of the test", css="table")


def operator(report, browser, gateway):
    """Someone who sees no tokens but their own."""
    token = gateway.token("--workspace", "w1", "--project", "research", "--role", "operator", "--label", "the operator of the test")
    with report.check("audit: an operator is called by the label of their token, everywhere"):
        browser.fill("Token", token)
        browser.click("Log in")
        browser.wait_text("Launch New")
        browser.go("/sessions")
        browser.wait_text("You are the operator of the test")
        browser.go("/activity?tab=changes")
        browser.wait_text("the operator of the test", css="#panel-changes")
        expect("token …" not in browser.text("#panel-changes"), browser.text("#panel-changes")[:300])
