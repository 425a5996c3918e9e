"""What the journey does not come by: two days of history, every status, long names, nothing at all."""

import os
import subprocess
import threading

from browser import faults, home, look, timebar
from browser.chromium import Browser
from checks.report import expect, wait_for
from checks.tidegate import REPOSITORY, Tidegate

_LONG = "an-instance-whose-name-is-as-long-as-names-may-be-and-then-some"

SETTINGS = """
[gpus]
source = "simulated"
simulated = [{ memory = "80GiB" }, { memory = "80GiB" }]
"""

_TEAM = """
[instance]
name = "team-llms"
project = "research"
engine = "sim"
[instance.options]
automatic_cpu_offloading = true
""" + "".join(f"""
[[deployment]]
model = "Organisation/A-Model-With-A-Long-Name-{size}B-Instruct"
endpoint_name = "{name}"
max_concurrent_requests = 8
[deployment.options]
dtype = "bfloat16"
[deployment.sim]
load = "100ms"
weights = "{size}GiB"
tokens_per_second = 20
""" for name, size in (("chat-large", 30), ("chat-small", 8), ("embedding-for-search", 2)))

_FILES = {
    "team-llms": _TEAM,
    "slow": """
[instance]
name = "slow"
project = "demo"
engine = "sim"
[[deployment]]
model = "stand/slow"
start = "boot"
[deployment.sim]
load = "20m"
""",
    "broken": """
[instance]
name = "broken"
project = "demo"
engine = "vllm"
[[deployment]]
model = "/nonexistent/model"
endpoint_name = "broken"
start = "boot"
""",
    _LONG: f"""
[instance]
name = "{_LONG}"
project = "a-project-with-a-name-that-does-not-end-where-one-would-like"
engine = "sim"
[[deployment]]
model = "Some-Organisation-On-The-Hub/{_LONG}"
""",
    "servers": """
[route]
name = "servers"
path = "/servers"
models = ["gpt-4o-mini", "gpt-4o", "a-name-that-is-longer-than-others"]
public = true
[[upstream]]
url = "http://127.0.0.1:9"
[[upstream]]
url = "http://127.0.0.1:19"
""",
    "wrong": """[route]
name = "wrong"
requests_per_minuet = 600
""",
}

_FULL = (
    ("full-instances", "/", "td"),
    ("full-instance", "/instances/team-llms?range=172800", ".plot[data-points]"),
    ("loading-instance", "/instances/slow", "progress"),
    ("failed-instance", "/instances/broken", ".note.bad"),
    ("long-instance", f"/instances/{_LONG}", ".plot"),
    ("form-of-three", "/launch?clone=team-llms", "#preview .code"),
    ("form-of-vllm", "/launch", "#problems .note"),
    ("full-endpoints", "/endpoints", "#panel-active td"),
    ("loading-endpoints", "/endpoints?tab=loading", "#panel-loading progress"),
    ("other-endpoints", "/endpoints?tab=other", "#panel-other td"),
    ("full-gpus", "/gpus?range=172800", ".plot[data-points]"),
    ("full-routes", "/routes", "#errors li"),
    ("decisions", "/activity", "#panel-decisions td"),
    ("lost", "/instances/not-there", ".note.bad"),
)

_EMPTY = tuple((f"empty-{name}", address, drawn) for name, address, drawn in (
    ("instances", "/", ".empty:not([hidden])"), ("endpoints", "/endpoints", ".empty:not([hidden])"), ("gpus", "/gpus", ".empty"),
    ("routes", "/routes", ".empty:not([hidden])"), ("decisions", "/activity", ".empty:not([hidden])")))


def _fill(gateway, deployments):
    """Two days of history, by the store's own code."""
    state = gateway.directory / ".tidegate"
    state.mkdir(mode=0o700)
    done = subprocess.run(
        ["cargo", "test", "-q", "--lib", "--", "--ignored", "--exact", "store::history::figures::two_days_for_a_dashboard"],
        cwd=REPOSITORY, env={**os.environ, "TIDEGATE_TEST_STATE": str(state), "TIDEGATE_TEST_DEPLOYMENTS": ",".join(deployments)},
        capture_output=True, text=True, timeout=400, check=False)
    expect(done.returncode == 0 and (state / "history.redb").exists(), f"{done.stdout[-500:]}{done.stderr[-1500:]}")


def _busy(gateway, token, until):
    """Streams that are still inside while pictures are taken."""
    body = '{"model": "chat-large", "stream": true, "max_tokens": 4000, "ignore_eos": true, "messages": [{"role": "user", "content": "Hi"}]}'
    while not until.is_set():
        with subprocess.Popen(
                ["curl", "-sN", "--max-time", "120", "--cacert", str(gateway.ca), f"{gateway.url}/v1/chat/completions",
                 "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json", "-d", body],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as stream:
            while stream.poll() is None and not until.wait(0.2):
                pass
            stream.kill()


def _logged_in(browser, gateway):
    """By the one-time link, as `tidegate login` prints it."""
    printed = gateway.run("login").stdout
    link = next(word for word in printed.split() if "code=" in word)
    browser.go(link[link.index("/login"):])
    browser.click("Log in")
    browser.wait_path("/")


def all_states(report, out):
    """Pictures and accessibility of every state; how soon two days are drawn."""
    ids = [f"team-llms/{name}" for name in ("chat-large", "chat-small", "embedding-for-search")]
    with Tidegate(SETTINGS) as gateway:
        _fill(gateway, ids)
        for name, text in _FILES.items():
            gateway.route(name, text)
        gateway.start("--stop-workers")
        token = gateway.token("--workspace", "w1", "--project", "research", "--label", "the busy one")
        for name in ("chat-large", "chat-small"):
            gateway.run("start", f"team-llms/{name}", check=False)
        until = threading.Event()
        streams = threading.Thread(target=_busy, args=(gateway, token, until))
        streams.start()
        try:
            with Browser(f"https://127.0.0.1:{gateway.admin_port}", out) as browser:
                _logged_in(browser, gateway)
                wait_for("it is active", lambda: gateway.deployment(ids[0])["status"] == "active", 30)
                look.fast(report, browser, "/instances/team-llms", 4, 0.5)
                home.failing(report, browser)
                faults.console_of_several(report, browser)
                faults.shades(report, browser)
                faults.values(report, browser)
                timebar.compared(report, browser)
                look.pictures(report, browser, _FULL, whole=False)
                browser.complaints()
                look.accessible(report, browser, _FULL)
        finally:
            until.set()
            streams.join()
    with Tidegate('[gpus]\nsource = "none"\n') as gateway:
        gateway.start()
        for file in (gateway.directory / "routes.d").glob("*.toml"):
            file.unlink()
        with Browser(f"https://127.0.0.1:{gateway.admin_port}", out) as browser:
            _logged_in(browser, gateway)
            look.pictures(report, browser, _EMPTY, whole=False)
            look.accessible(report, browser, _EMPTY)
