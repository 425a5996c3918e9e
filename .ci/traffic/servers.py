"""Several servers of one route: shares, bindings, and one that dies under load."""

import collections
import json

from checks.report import expect, wait_for
from traffic.engines import Load
from traffic.limits import ask

HEALTH = 'health_check = { path = "/health", interval = "200ms", timeout = "1s", failures = 2, successes = 1 }'


#: Of a server that dies, requests at work may be asked of another one.
RETRIES = '[route.retries]\non = ["unreachable", "broken"]\nbudget = 1.0\n'


def routes(engines):
    """Name and text of the route files."""
    watched = "".join(engine.upstream(HEALTH) for engine in engines)
    session = '[route.load_balancing]\nsession_header = "x-session-id"\n'
    yield "several", f"public = true\n{session}{RETRIES}{watched}"
    yield "unwatched", f"public = true\n{RETRIES}" + "".join(engine.upstream() for engine in engines)


def _lines(gateway, route):
    for line in (gateway.directory / "access.log").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("route") == route:
            yield entry


def _state(gateway, route, engine):
    shown = json.loads(gateway.run("ps", "--json").stdout)["upstreams"]
    return next(entry["state"] for entry in shown if (entry["route"], entry["address"]) == (route, engine.label))


def run(report, gateway, engines):
    """All checks of several servers."""
    token, victim = gateway.token("--workspace", "acme"), engines[0]
    with report.check("three servers share the load") as check:
        sent = Load(gateway, token, "several", "-n", "600").answered()

        def shares():
            return collections.Counter(entry["deployment"] for entry in _lines(gateway, "several"))

        wait_for("the log", lambda: sum(shares().values()) == sent, 5)
        check.figure = f"{sorted(shares().values())} of {sent}"
        expect(len(shares()) == 3 and min(shares().values()) > sent / 5, "one was left out")
    with report.check("a session stays with its server") as check:
        for turn in range(18):
            ask(gateway, token, "several", 1, **{"x-session-id": f"s{turn % 6}"})
        last = wait_for("the log", lambda: _last(gateway, "several", 18, sent), 5)
        of = [{entry["deployment"] for entry in last[session::6]} for session in range(6)]
        expect(all(len(servers) == 1 for servers in of), f"{of}")
        check.figure = f"6 sessions on {len(set.union(*of))} servers"
    for route, state in [("unwatched", "ejected"), ("several", "down")]:
        with report.check(f"a server of {route!r} dies under load: no request fails, and it is left out") as check:
            load = Load(gateway, token, route, "-n", "1500")
            wait_for("a third of it", lambda route=route: _served(gateway, route) > 500, 30, pause=0.02)
            victim.kill()
            try:
                good = load.answered()
                wait_for(state, lambda route=route: _state(gateway, route, victim) == state, 10)
            finally:
                victim.start()
            retried = gateway.metrics().sum("tidegate_upstream_retries_total", route=route)
            check.figure = f"{good} answered, {int(retried)} on a further server, then {state}"
    with report.check("it comes back by its health check, and with its first answers") as check:
        states = []

        def is_in():
            Load(gateway, token, "several", "-n", "20").answered()
            states.append(_state(gateway, "several", victim))
            return states[-1] == "in"

        try:
            wait_for("it is in", is_in, 20)
        finally:
            check.figure = ", ".join(dict.fromkeys(states))


def _last(gateway, route, count, before):
    entries = list(_lines(gateway, route))[before:]
    return entries if len(entries) == count else None


def _served(gateway, route):
    return sum(1 for _ in _lines(gateway, route))
