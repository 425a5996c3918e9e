"""Where to kill: at the system calls that a transition makes, as strace sees them.

`strace --detach-on=execve` follows the threads of Tidegate and lets go of what it starts as that becomes
another program: a worker runs on untraced when Tidegate is killed, as it does without strace.
"""

import random
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from checks import processes
from checks.report import wait_for

#: What changes the world outside: files, processes, signals, talk with a worker.
CALLS = ("openat", "mkdir", "rename", "unlink", "rmdir", "unlinkat", "fsync", "fdatasync", "clone", "clone3", "vfork",
         "pidfd_open", "pidfd_send_signal", "kill", "waitid", "wait4", "connect", "sendto", "flock")
#: Files that are only read change nothing.
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
#: Points of one call in one transition: later ones are like earlier ones.
_EACH_MAX = 6


@dataclass(frozen=True)
class Point:
    """The call before which Tidegate is killed: the nth of its kind in one thread, from where a transition begins."""

    transition: str
    call: str
    nth: int

    def __str__(self):
        return f"{self.transition}: before {self.call} {self.nth}"


class Strace:
    """strace on a running process, in a `with` block; it lets go of whatever still lives."""

    def __init__(self, pid, *arguments):
        self._told = tempfile.NamedTemporaryFile(prefix="tg-strace-")
        self._out = tempfile.NamedTemporaryFile(prefix="tg-strace-")
        self._process = subprocess.Popen(
            ["strace", "-f", "--detach-on=execve", "-o", self._out.name, *arguments, "-p", str(pid)],
            stdin=subprocess.DEVNULL, stdout=self._told, stderr=self._told)
        self._pid = pid

    def __enter__(self):
        threads = Path(f"/proc/{self._pid}/task")

        def traced():
            if not processes.is_alive(self._pid):
                return True  # a call that came by itself, as of a look at a file, was the one that it is killed in
            if self._process.poll() is not None:
                raise AssertionError(f"strace ended: {Path(self._told.name).read_text(encoding='utf-8')}")
            try:
                states = [(thread / "status").read_text(encoding="utf-8") for thread in threads.iterdir()]
            except (FileNotFoundError, ProcessLookupError):
                return False  # one has ended meanwhile
            return all("TracerPid:\t0\n" not in state for state in states)

        wait_for("every thread is traced", traced, 10, pause=0.01)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(10)

    def calls(self):
        """The calls that were seen: thread, name, arguments."""
        text = Path(self._out.name).read_text(encoding="utf-8", errors="replace")
        return re.findall(r"^(\d+) +(\w+)\((.*)$", text, re.MULTILINE)


def seen(transition, calls):
    """The points of a transition whose calls were seen, in order and each once."""
    counts, points, each = {}, {}, {}
    for thread, call, arguments in calls:
        nth = counts[thread, call] = counts.get((thread, call), 0) + 1
        point = Point(transition, call, nth)
        if point in points or (call == "openat" and not _WRITES.search(arguments)):
            continue
        each[call] = each.get(call, 0) + 1
        if each[call] <= _EACH_MAX:
            points[point] = None
    return list(points)


def chosen(points, count, seed):
    """So many of them, evenly over all transitions."""
    step = max(1.0, len(points) / count)
    first = random.Random(seed).uniform(0, step)
    return [points[int(first + step * n)] for n in range(count) if int(first + step * n) < len(points)]
