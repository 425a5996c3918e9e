"""A thousand route files that are written again and again under load."""

import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from checks.report import expect, wait_for
from traffic.engines import Load
from traffic.limits import ask

#: Files, and seconds of load.
FILES, SECONDS = 1000, 8
#: Texts that each file has in turns.
EDITIONS = 4


def prepare(place, engine, number):
    """A directory with all files, each with a limit that names the edition."""
    directory = Path(place) / str(number)
    directory.mkdir()
    for name in (f"r{each}" for each in range(FILES)):
        (directory / f"{name}.toml").write_text(
            f'[route]\nname = "{name}"\npublic = true\nrequests_per_minute = {limit_of(number)}\n' + engine.upstream(),
            encoding="utf-8")
    return directory


def limit_of(number):
    """What the routes of an edition say."""
    return 1_000_000 - number


def write(gateway, edition):
    """All files anew; in place, as careless tools do."""
    subprocess.run(["cp", "-r", f"{edition}/.", gateway.directory / "routes.d"], check=True, timeout=60)


def run(report, gateway, engine):
    """The check."""
    with report.check(f"{FILES} route files are written again and again under load: no request fails") as check, ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        editions = [prepare(place, engine, number) for number in range(EDITIONS)]
        token, rounds = gateway.token("--workspace", "acme"), 0
        write(gateway, editions[0])
        wait_for("the routes", lambda: ask(gateway, token, "r999")[0] == 200, 20)
        load, began = Load(gateway, token, "r7", "-D", str(SECONDS)), time.monotonic()
        while not load.is_over():
            rounds += 1
            write(gateway, editions[rounds % EDITIONS])
            # Ten times a second, where the disk keeps up.
            time.sleep(max(0.0, began + rounds / 10 - time.monotonic()))
        good, took = load.answered(), time.monotonic() - began
        check.figure = f"{good} answered while {FILES} files were written {rounds} times in {took:.1f} s"

        def limit():
            return ask(gateway, token, "r999")[2]["x-ratelimit-limit-requests"]

        wait_for("the last round", lambda: limit() == str(limit_of(rounds % EDITIONS)), 10)
        expect(rounds >= 3, "too slow to tell")
