"""A thousand route files that are written again and again under load."""

import time

from checks.report import expect, wait_for
from traffic.engines import Load
from traffic.limits import ask

#: Files, and seconds of load.
FILES, SECONDS = 1000, 8


def write(gateway, engine, round_number):
    """All files anew, each with a limit that names the round; in place, as careless tools do."""
    for number in range(FILES):
        path = gateway.directory / "routes.d" / f"r{number}.toml"
        path.write_text(
            f'[route]\nname = "r{number}"\npublic = true\nrequests_per_minute = {1_000_000 - round_number}\n'
            + engine.upstream(), encoding="utf-8")


def run(report, gateway, engine):
    """The check."""
    with report.check(f"{FILES} route files are written again and again under load: no request fails") as check:
        token, rounds = gateway.token("--workspace", "acme"), 0
        write(gateway, engine, rounds)
        wait_for("the routes", lambda: ask(gateway, token, "r999")[0] == 200, 20)
        load, began = Load(gateway, token, "r7", "-D", str(SECONDS)), time.monotonic()
        while not load.is_over():
            rounds += 1
            write(gateway, engine, rounds)
            # Ten times a second, where the disk keeps up.
            time.sleep(max(0.0, began + rounds / 10 - time.monotonic()))
        good, took = load.answered(), time.monotonic() - began
        check.figure = f"{good} answered while {FILES} files were written {rounds} times in {took:.1f} s"

        def limit():
            return ask(gateway, token, "r999")[2]["x-ratelimit-limit-requests"]

        wait_for("the last round", lambda: limit() == str(1_000_000 - rounds), 10)
        expect(rounds >= 3, "too slow to tell")
