"""python3 -m browser: a person at the dashboard, in Chromium.

Pictures go to .ci/out/browser, which git does not keep.
"""

import shutil
import sys

from browser import crowd, edit, faults, gallery, home, journey, look, reviews, timebar
from browser.chromium import Browser
from checks.report import Report, exit_on_sigterm, expect
from checks.tidegate import REPOSITORY, Tidegate

_CHAT = """
[route]
name = "chat"
project = "research"

[instance]
name = "chat"
project = "research"
engine = "sim"

[instance.idle]
offload_after = "1h"

[[deployment]]
model = "stand/chat"
endpoint_name = "chat-model"
[deployment.sim]
load = "1s"
"""

#: A route whose name is not its model's, and a server that is not there.
_POOL = """
[route]
name = "pool"
project = "research"
models = ["pool"]

[instance]
name = "pool-instance"
project = "research"
route = "pool"
engine = "sim"
[[deployment]]
model = "stand/pool"
endpoint_name = "pool-model"
"""


def main():
    """Serves a stand-in, and lets a person at it."""
    exit_on_sigterm()
    report = Report("browser")
    out = REPOSITORY / ".ci" / "out" / "browser"
    shutil.rmtree(out, ignore_errors=True)
    with Tidegate(gallery.SETTINGS) as gateway:
        gateway.route("chat", _CHAT)
        gateway.route("pool", _POOL)
        gateway.start("--stop-workers")
        token = gateway.token("--workspace", "w1", "--role", "admin", "--label", "the person of the test")
        with Browser(f"https://127.0.0.1:{gateway.admin_port}", out) as browser:
            with report.check("the journey could be driven to its end"):
                _journey(report, browser, gateway, token)
    with report.check("there was room for one of two"):
        home.room(report, out)
    with report.check("the time bar could be used"):
        timebar.check(report, out)
    with report.check("the crowd could be seen"):
        crowd.check(report, out)
    with report.check("the gallery could be made"):
        gallery.all_states(report, out)
    return report.finish()


def _journey(report, browser, gateway, token):
    look.pictures(report, browser, [look.LOGIN])
    look.accessible(report, browser, [look.LOGIN])
    journey.log_in(report, browser, gateway, token)
    # A refused login is an error of the browser's console, and meant to be.
    browser.complaints()
    journey.launch(report, browser, gateway)
    user = journey.ask(report, browser, gateway)
    journey.watch(report, browser, gateway, user)
    journey.exchange(report, browser, gateway)
    edit.saved(report, browser, gateway)
    reviews.check(report, browser, gateway)
    for each in (faults.console, faults.young, faults.phone):
        each(report, browser)
    faults.people(report, browser, gateway)
    journey.routes(report, browser)
    journey.routes_with_errors(report, browser, gateway)
    look.pictures(report, browser)
    look.accessible(report, browser)
    journey.tokens(report, browser, gateway, user)
    journey.embed(report, browser, gateway)
    journey.stop(report, browser, gateway)
    with report.check("no script failed, and nothing broke the page's Content-Security-Policy, all the way"):
        complaints = browser.complaints()
        expect(not complaints, "\n".join(complaints[:10]))
    journey.log_out(report, browser)
    faults.operator(report, browser, gateway)


if __name__ == "__main__":
    sys.exit(main())
