"""A file that a person wrote, changed by the form."""

from browser.journey import filled
from checks.report import expect

_KEPT = """#:schema ../.tidegate/route.schema.json
# Owner: Ana. Do not raise the limit.
[instance] # hers
project  =  'research'
name = "kept"
engine = "sim"

# The only one.
[[deployment]]
model = "stand/kept"
endpoint_name = "kept-model"
max_concurrent_requests = 4 # not more
[deployment.sim]
load = "1s"
# the end
"""


def saved(report, browser, gateway):
    """A file that a person wrote, changed by the form."""
    file = gateway.directory / "routes.d" / "kept.toml"
    with report.check("edit: a form saved over a TOML file changes one line; comments, order and schema stay") as check:
        gateway.route("kept", _KEPT)
        browser.go("/")
        browser.wait_text("kept")
        browser.go("/launch?edit=kept")
        filled(browser, "kept")
        browser.fill("Max Concurrent Requests", "8")
        browser.wait_text("Everything fits", css="#problems")
        browser.click("Review", kinds="#launch")
        browser.wait_find("dialog .diff")
        seen = browser.js("return ['del', 'ins'].map((tag) => [...document.querySelectorAll(`dialog .diff ${tag}`)].map((line) => line.textContent))")
        expect(seen == [["- max_concurrent_requests = 4 # not more"], ["+ max_concurrent_requests = 8 # not more"]], f"{seen}")
        check.figure = browser.text("dialog .review > section:last-child").replace("\n", " ")
        expect("kept-model" in check.figure, check.figure)
        browser.picture("review")
        browser.theme("dark")
        browser.size(360, 740)
        browser.picture("review-dark-360")
        browser.theme("light")
        browser.size(1440, 900)
        browser.click("Back")
        expect(file.read_text(encoding="utf-8") == _KEPT, "Back wrote the file")
        browser.click("Review", kinds="#launch")
        browser.click("Apply")
        browser.wait_path("/instances/kept")
        text = file.read_text(encoding="utf-8")
        expect(text == _KEPT.replace("= 4 #", "= 8 #"), text)
    with report.check("edit: what is new from the form is TOML"):
        made = sorted(each.name for each in (gateway.directory / "routes.d").glob("from-form*"))
        expect(made == ["from-form-2.toml", "from-form.toml"], f"{made}")
    with report.check("activity: what was changed is told, key by key") as check:
        browser.go("/activity?tab=changes")
        browser.wait_text("max_concurrent_requests: 4 -> 8", css="#panel-changes")
        check.figure = "deployment.kept-model.max_concurrent_requests: 4 -> 8"
    file.unlink()
