"""The report of a script: one line per check, a closing line, an exit code.

A check is a `with` block. What it asserts decides; an exception of any kind
fails it and the next check goes on.
"""

import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

#: Where `.ci/run` sums up what its scripts count.
COUNTS_VARIABLE = "TIDEGATE_CI_COUNTS"


class Check:
    """One check while it runs; `figure` is what stands behind its line."""

    def __init__(self):
        self.figure = ""


class Report:
    """Counts checks and prints each as it ends."""

    def __init__(self, script):
        self.script = script
        self.passed = 0
        self.failed = []

    @contextmanager
    def check(self, name):
        """Runs a block as the check `name`."""
        check, began = Check(), time.monotonic()
        try:
            yield check
        except Exception as error:  # a failed check must not end the others
            self.failed.append(name)
            self._line("FAIL", name, check.figure, time.monotonic() - began)
            self._explain(error)
        else:
            self.passed += 1
            self._line("PASS", name, check.figure, time.monotonic() - began)

    def fail(self, name, why):
        """Counts a check that could not even be tried."""
        self.failed.append(name)
        self._line("FAIL", name, why, 0.0)

    def note(self, text):
        """Prints what is no check."""
        print(f"      {text}", flush=True)

    def finish(self):
        """Prints the closing line; returns the exit code."""
        for name in self.failed:
            print(f"failed: {name}")
        print(f"{self.script}: {self.passed} passed, {len(self.failed)} failed", flush=True)
        counts = os.environ.get(COUNTS_VARIABLE)
        if counts:
            with Path(counts).open("a", encoding="utf-8") as file:
                file.write(f"{self.passed} {len(self.failed)}\n")
        return 1 if self.failed or not self.passed else 0

    @staticmethod
    def _line(verdict, name, figure, seconds):
        figure = f": {figure}" if figure else ""
        print(f"{verdict}  {name}{figure}  [{seconds:.1f} s]", flush=True)

    @staticmethod
    def _explain(error):
        lines = traceback.format_exception(error)
        # The place in the check, and what was wrong; not the depths of an SDK.
        text = "".join(lines).strip().splitlines()
        own = [line for line in text if line.lstrip().startswith("File") and ".ci" in line]
        for line in [*own[-2:], *str(text[-1]).splitlines()]:
            print(f"      | {line.strip()[:600]}", file=sys.stdout, flush=True)


def skip(what):
    """Tells what could not be tried here, at once and again at the end of the run."""
    print(f"SKIPPED  {what}", flush=True)
    counts = os.environ.get(COUNTS_VARIABLE)
    if counts:
        with Path(f"{counts}.skipped").open("a", encoding="utf-8") as file:
            file.write(f"SKIPPED  {what}\n")


def exit_on_sigterm():
    """SIGTERM unwinds the script, so that what it started is ended; a second one changes nothing."""
    def leave(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(1)

    signal.signal(signal.SIGTERM, leave)


def expect(condition, message):
    """Fails the check with `message` unless `condition` holds."""
    if not condition:
        raise AssertionError(message)


def wait_for(what, probe, seconds, pause=0.1):
    """Asks `probe` until it returns something true, which is returned.

    The wait has an end: after `seconds` the check fails.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)
