"""Limits of routes, tokens and workspaces, as clients meet them."""

import http.client
import json
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import openai

from checks import openai_client
from checks.openai_client import Exchanges, hello, raised
from checks.report import expect, wait_for
from traffic.engines import Load, body

SETTINGS = "[workspaces.small]\nmax_concurrent_requests = 1\n"


def routes(engine):
    """Name and text of the route files."""
    upstream = engine.upstream()
    yield "metered", ("public = true\nrequests_per_minute = 30\ntokens_per_minute = 100000\n" + upstream)
    yield "queued", ('public = true\nmax_concurrent_requests = 1\nqueue_requests_max = 16\nqueue_wait_max = "20s"\n'
                     + upstream)


def ask(gateway, token, model, tokens=2, **headers):
    """Status, body and headers of a chat request."""
    request = urllib.request.Request(
        gateway.url + "/v1/chat/completions", data=json.dumps(body(model, tokens)).encode(),
        headers={"authorization": f"Bearer {token}", "content-type": "application/json", **headers})
    context = ssl.create_default_context(cafile=gateway.ca)
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as response:
            return response.status, json.loads(response.read()), response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"], error.headers


class Held:
    """A long answer that keeps a place until it is closed."""

    def __init__(self, gateway, token, model):
        self._sdk = openai_client.client(gateway, token)
        self._stream = self._sdk.chat.completions.create(
            model=model, messages=hello(), max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
        next(iter(self._stream))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()


def run(report, gateway):
    """All checks of limits."""
    _budgets(report, gateway)
    _retry(report, gateway)
    _concurrency(report, gateway)
    _turns(report, gateway)
    _patience(report, gateway)
    _large(report, gateway)


def _budgets(report, gateway):
    with report.check("x-ratelimit-*: the route's limits, lowered by a token, never raised") as check:
        def told(*limits):
            status, _, headers = ask(gateway, gateway.token("--workspace", "acme", *limits), "metered")
            expect(status == 200, f"{status}")
            return tuple(headers[f"x-ratelimit-limit-{what}"] for what in ("requests", "tokens"))

        seen = [told(), told("--requests-per-minute", "7", "--tokens-per-minute", "500"),
                told("--requests-per-minute", "7000", "--tokens-per-minute", "500000")]
        expect(seen == [("30", "100000"), ("7", "500"), ("30", "100000")], f"{seen}")
        check.figure = f"{seen}"
    with report.check("a request that can never fit: insufficient_quota, and no retry") as check:
        token = gateway.token("--workspace", "acme", "--tokens-per-minute", "100")
        seen = Exchanges()
        sdk = openai_client.client(gateway, token, retries=2, exchanges=seen)
        error = raised(openai.RateLimitError, lambda: sdk.chat.completions.create(
            model="metered", messages=hello(), max_tokens=101))
        expect(error.code == "insufficient_quota" and seen.statuses == [429], f"{error.body} {seen.statuses}")
        expect(error.response.headers["x-ratelimit-limit-tokens"] == "100", f"{error.response.headers}")
        check.figure = error.body["message"]


def _retry(report, gateway):
    with report.check("30 requests a minute are 30 at once, then one each 2 s, for which the SDK waits") as check:
        token = gateway.token("--workspace", "acme")
        Load(gateway, token, "metered", "-n", "30").answered()
        seen = Exchanges()
        sdk = openai_client.client(gateway, token, retries=4, exchanges=seen)
        began = time.monotonic()
        sdk.chat.completions.create(model="metered", messages=hello(), max_tokens=1)
        took = time.monotonic() - began
        expect(seen.statuses[0] == 429 and seen.statuses[-1] == 200, f"{seen.statuses}")
        pause, asked = seen.pause_before_retry(), seen.asked_pause()
        expect(asked <= pause <= asked + 1.5, f"waited {pause:.2f} s of {asked:.2f} s")
        check.figure = f"statuses {seen.statuses} in {took:.1f} s"


def _concurrency(report, gateway):
    cases = {
        "a workspace": ["--workspace", "small"],
        "a token": ["--workspace", "acme", "--max-concurrent-requests", "1"],
    }
    for name, arguments in cases.items():
        with report.check(f"{name} with one request at work: 429 at once, and one more after it") as check:
            token = gateway.token(*arguments)
            with Held(gateway, token, "metered"):
                status, error, headers = ask(gateway, token, "metered")
            expect((status, error["code"]) == (429, "concurrency_limit_exceeded"), f"{status} {error}")
            expect(1 <= float(headers["retry-after"]) <= 2, f"{headers}")
            wait_for("the place", lambda: ask(gateway, token, "metered")[0] == 200, 5)
            check.figure = error["message"]


def _turns(report, gateway):
    with report.check("one place: workspaces take turns, and a lower class comes last") as check:
        tokens = {name: gateway.token("--workspace", name) for name in ("many", "few")}
        tokens["last"] = gateway.token("--workspace", "third", "--priority", "2")
        order, threads = [], []

        def one(name):
            status, _, _ = ask(gateway, tokens[name], "queued", 10)
            order.append(name if status == 200 else f"{name} {status}")

        def waiting():
            return gateway.metrics().sum("tidegate_queued_requests")

        with Held(gateway, gateway.token("--workspace", "acme"), "queued"):
            for number, name in enumerate(["last", "many", "many", "many", "many", "few", "few"]):
                thread = threading.Thread(target=one, args=(name,), daemon=True)
                thread.start()
                threads.append(thread)
                wait_for("it waits", lambda number=number: waiting() == number + 1, 10, pause=0.02)
        for thread in threads:
            thread.join(30)
        check.figure = ", ".join(order)
        expect(order == ["many", "few", "many", "few", "many", "many", "last"], "another order")


def _patience(report, gateway):
    with report.check("who waits for a place is refused in time for its own patience") as check:
        token = gateway.token("--workspace", "acme")
        with Held(gateway, gateway.token("--workspace", "acme"), "queued"):
            began = time.monotonic()
            status, error, headers = ask(gateway, token, "queued", **{"x-stainless-read-timeout": "1"})
            took = time.monotonic() - began
        expect((status, error["code"]) == (503, "queue_timeout"), f"{status} {error}")
        expect(0.8 <= took <= 3 and headers["x-should-retry"] == "true", f"{took:.2f} s, {headers}")
        check.figure = f"{took:.2f} s of 20 s"


def _large(report, gateway):
    with report.check("who is refused while sending 16 MB sees the refusal, not a broken pipe") as check:
        text, context = b" " * 16_000_000, ssl.create_default_context(cafile=gateway.ca)
        seen = []
        for _ in range(4):
            connection = http.client.HTTPSConnection("localhost", gateway.port, context=context, timeout=20)
            connection.request("POST", "/v1/chat/completions", text, {
                "authorization": "Bearer bad", "content-type": "application/json"})
            seen.append(str(connection.getresponse().status))
            connection.close()
        for version in ("--http1.1", "--http2"):
            done = subprocess.run(
                ["curl", "-sS", version, "--cacert", gateway.ca, "-H", "Authorization: Bearer bad", "-H", "Expect:",
                 "-H", "Content-Type: application/json", "--data-binary", "@-", "-w", "%{http_code}",
                 "-o", "/dev/null", gateway.url + "/v1/chat/completions"],
                input=text[:6_000_000], capture_output=True, timeout=20, check=False)
            seen.append(done.stdout.decode() + done.stderr.decode())
        expect(set(seen) == {"401"}, f"{seen}")
        check.figure = f"{len(seen)} times by http.client and curl"
