"""Processes, read from /proc: who belongs to a run, who is left of a session.

Only processes that carry the mark of a run in their environment, and those of the
sessions that such a one leads, are ever ended here, each by its own id.
"""

import os
import signal
import time
from pathlib import Path

#: Set to a random text for everything that a run starts; children inherit it.
MARK_VARIABLE = "TIDEGATE_CI_MARK"


def _stat(pid):
    """State and session of a process; `None` once it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return fields[0], int(fields[3])


def _pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def is_alive(pid):
    """Whether the process runs; a zombie does not."""
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def session_of(pid):
    """The session of a process; `None` once it is gone."""
    stat = _stat(pid)
    return stat and stat[1]


def in_session(session):
    """Every process of a session, zombies left out."""
    stats = ((pid, _stat(pid)) for pid in _pids())
    return [pid for pid, stat in stats if stat and stat[1] == session and stat[0] not in "ZX"]


def marked(mark):
    """Every process whose mark begins so, this one left out, and the sessions that those lead: the
    engine cores of vLLM write their title over their environment."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        carries = any(entry.startswith(wanted) for entry in environment.split(b"\0"))
        if carries and pid != os.getpid() and is_alive(pid):
            found.append(pid)
    led = {pid for pid in found if session_of(pid) == pid}
    others = [pid for session in led for pid in in_session(session)]
    return sorted({*found, *others})


def arguments(pid):
    """The command line of a process; empty once it is gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in text.split(b"\0")[:-1]]


def argument_after(pid, flag):
    """What follows `flag` on the command line of a process."""
    words = arguments(pid)
    for word, following in zip(words, words[1:]):
        if word == flag:
            return following
    return None


def end_marked(mark):
    """Kills what still carries the mark; returns how many there were."""
    left = marked(mark)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(left)
