"""Ten times what a deployment can do: those who are let in are served as if they were alone.

TIDEGATE_CI_OVERLOAD=600 makes it ten minutes instead of some seconds.
"""

import json
import os
import subprocess
import tempfile

from checks.report import expect
from checks.tidegate import Tidegate
from traffic.engines import Engine, body

#: Requests at once that the route takes, and how many may wait for a place.
PLACES, WAITING = 16, 4
#: Tokens of an answer: 20 ms to the first and 10 ms for each make 110 ms, and some 145 requests a second.
TOKENS = 10
SECONDS = int(os.environ.get("TIDEGATE_CI_OVERLOAD", "12"))


def _load(gateway, token, clients, *arguments, seconds):
    """Status and milliseconds of each request that was answered."""
    with tempfile.TemporaryDirectory() as directory:
        text, log = f"{directory}/body.json", f"{directory}/log"
        with open(text, "w", encoding="utf-8") as file:
            json.dump(body("overload", TOKENS), file)
        subprocess.run(
            ["h2load", "--h1", "-t", "1", "-c", str(clients), "-D", str(seconds), *arguments, f"--log-file={log}",
             "-H", f"authorization: Bearer {token}", "-H", "content-type: application/json", "-d", text,
             gateway.url + "/v1/chat/completions"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 60, check=True)
        with open(log, encoding="ascii") as lines:
            rows = [line.split() for line in lines]
    return [(int(status), int(micros) / 1000) for _, status, micros in rows]


def _p99(times):
    times = sorted(times)
    return times[len(times) * 99 // 100]


def run(report, environment):
    """Measures what it can do, then offers ten times as much."""
    with Tidegate('[gpus]\nsource = "none"\n', environment=environment) as gateway:
        engine = Engine({**os.environ, **gateway.environment})
        try:
            gateway.route("overload", f'[route]\nname = "overload"\npublic = true\nmax_concurrent_requests = {PLACES}\n'
                          f'queue_requests_max = {WAITING}\nqueue_wait_max = "1s"\n{engine.upstream()}')
            gateway.start()
            token = gateway.token("--workspace", "w1")
            with report.check(f"ten times its capacity for {SECONDS} s: goodput and latency of those let in hold") as check:
                # As many clients as places: nobody waits, nobody is refused.
                alone = _load(gateway, token, PLACES, seconds=5)
                expect(all(status == 200 for status, _ in alone), "someone was refused without overload")
                capacity, calm = len(alone) / 5, _p99([time for _, time in alone])
                clients = 10 * PLACES
                flood = _load(gateway, token, clients, f"--rps={10 * capacity / clients:.2f}", seconds=SECONDS)
                served = [time for status, time in flood if status == 200]
                goodput, offered = len(served) / SECONDS, len(flood) / SECONDS
                check.figure = (f"capacity {capacity:.0f}/s, offered {offered:.0f}/s, goodput {goodput / capacity:.2f}, "
                                f"p99 {_p99(served):.0f} ms against {calm:.0f} ms alone")
                expect({status for status, _ in flood} <= {200, 429, 503}, f"other answers: { {status for status, _ in flood} }")
                expect(goodput >= 0.9 * capacity, f"goodput fell to {goodput:.0f}/s")
                expect(_p99(served) <= 2 * calm, "those who were let in waited too long")
        finally:
            engine.kill()
