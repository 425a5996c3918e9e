"""A disk that is full: history stops with a visible warning, serving and waking go on, a start that can't be written
down waits; and all of it goes on by itself when there is room."""

import errno
import json
import os
import subprocess
import time

import openai

from checks import processes, unix_http
from checks.openai_client import client, hello, raised
from checks.report import expect, skip, wait_for
from checks.tidegate import Tidegate

_BYTES = 24 << 20

_INSTANCE = """
[instance]
name = "lab"
project = "research"
engine = "sim"
[[deployment]]
model = "stand/in"
endpoint_name = "lab"
[deployment.sim]
load = "100ms"
"""

#: One that sleeps while the disk is full, and one that is asked for first then.
_MORE = """
[instance]
name = "more"
project = "research"
engine = "sim"
[instance.idle]
levels = ["cpu", "disk"]
[[deployment]]
model = "stand/in"
endpoint_name = "nap"
[[deployment]]
model = "stand/in"
endpoint_name = "new"
"""


class _Small:
    """A file system of its own for a directory, in memory and of a few MiB."""

    def __init__(self, directory):
        self.directory = directory
        self.ballast = directory / "ballast"
        directory.mkdir(mode=0o700)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_BYTES},mode=700", "tmpfs", directory],
                              capture_output=True, text=True, timeout=20, check=False)
        self.mounted = done.returncode == 0

    def fill(self):
        """Leaves no page of it."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError as error:
                    expect(error.errno == errno.ENOSPC, f"{error}")

    def free(self):
        """Makes room again."""
        self.ballast.unlink()

    def unmount(self):
        """Takes it away, whoever still has a file open."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.directory], timeout=20, check=False)


def _warnings(gateway):
    status = json.loads(unix_http.get(str(gateway.directory / ".tidegate" / "admin.sock"), "/api/v1/status"))
    return status["warnings"]


def full(report):
    """Fills the disk under a gateway that serves."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway:
        disk = _Small(gateway.directory / ".tidegate")
        if not disk.mounted or os.statvfs(disk.directory).f_blocks * os.statvfs(disk.directory).f_frsize > 2 * _BYTES:
            skip("a full disk: this user may not mount a file system")
            disk.unmount()
            return
        try:
            _filled(report, gateway, disk)
        finally:
            gateway.end()
            disk.unmount()


def _filled(report, gateway, disk):
    gateway.route("lab", _INSTANCE)
    gateway.route("more", _MORE)
    gateway.start("--stop-workers")
    token = gateway.token("--workspace", "w1", "--project", "research")
    lab = client(gateway, token)

    def ask(model="lab"):
        return lab.chat.completions.create(model=model, messages=hello(), max_tokens=4).choices[0].message.content

    expect(ask("nap"), "no answer")
    gateway.run("offload", "more/nap")
    gateway.wait_status("more/nap", "offloaded", 10)

    with report.check("a full disk: history stops with a warning that says what to do; requests go on") as check:
        expect(ask() and not _warnings(gateway), f"before: {_warnings(gateway)}")
        disk.fill()
        answered, began = 0, time.monotonic()

        def told():
            nonlocal answered
            expect(ask(), "no answer")
            answered += 1
            return [text for text in _warnings(gateway) if text.startswith("history")]

        warnings = wait_for("a warning", told, 30, pause=0.2)
        expect("full" in warnings[0], f"{warnings}")
        expect(gateway.metrics().sum("tidegate_history_degraded") == 1, "the gauge does not say it")
        check.figure = f"told after {time.monotonic() - began:.0f} s, {answered} requests answered: {warnings[0]}"
    _started(report, gateway, ask)
    with report.check("a full disk: history goes on by itself when there is room") as check:
        disk.free()
        began = time.monotonic()
        wait_for("no warning", lambda: ask() and not _warnings(gateway), 120, pause=0.5)
        expect(gateway.metrics().sum("tidegate_history_degraded") == 0, "the gauge does not say it")
        check.figure = f"after {time.monotonic() - began:.0f} s"
    with report.check("a full disk: the start that waited comes up by itself when there is room") as check:
        gateway.wait_status("more/new", "idle", 40)
        expect(ask("new"), "no answer")
        told = [line for line in gateway.run("events", "more/new").stdout.splitlines() if "again" in line]
        expect(len(_records(gateway)) == 3, f"{_records(gateway)}")
        check.figure = told[-1].strip()


def _records(gateway):
    return sorted(path.name for path in (gateway.directory / ".tidegate" / "workers").iterdir() if path.name != "lock")


def _started(report, gateway, ask):
    """What sleeps is woken, and what was never started says why it can't be."""
    with report.check("a full disk: one that sleeps wakes") as check:
        expect(ask("nap"), "no answer")
        check.figure = gateway.deployment("more/nap")["status"]
    with report.check("a full disk: one that can't be written down is refused with a time, says why, leaves nothing") as check:
        before, records = processes.marked(gateway.mark), _records(gateway)
        error = raised(openai.InternalServerError, lambda: ask("new"))
        expect((error.status_code, error.code) == (503, "model_loading"), f"{error.status_code} {error.body}")
        expect(1 <= int(error.response.headers["retry-after"]) <= 60, f"{error.response.headers}")
        expect("space" not in str(error), f"told to the client: {error}")
        wanted = "its record can't be written: no space left on "
        for _ in range(2):
            raised(openai.InternalServerError, lambda: ask("new"))
        reason = gateway.deployment("more/new")["reason"] or ""
        expect(wanted in reason and "tried again in" in reason, reason)
        for command in (("ps",), ("explain", "more/new"), ("events", "more/new")):
            expect(wanted in gateway.run(*command).stdout, f"`tidegate {command[0]}` does not say it")
        expect(processes.marked(gateway.mark) == before, "a process is left")
        expect(_records(gateway) == records, f"{_records(gateway)} instead of {records}")
        check.figure = f"Retry-After {error.response.headers['retry-after']}; {reason}"
