"""The first minute of a person: serve on a terminal, paste the line that it prints."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checks import processes
from checks.report import expect
from checks.tidegate import REPOSITORY, binary, free_port


class _Terminal:
    """`tidegate serve` with a terminal for its output."""

    def __init__(self, directory, mark):
        self._master, slave = pty.openpty()
        environment = {**os.environ, processes.MARK_VARIABLE: mark, "TERM": "xterm"}
        self.process = subprocess.Popen(
            [binary(), "serve"], cwd=directory, env=environment, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True)
        os.close(slave)
        self.text = ""

    def read_until(self, pattern, seconds):
        """Reads until the pattern matches; returns the match."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self._master, 65536).decode(errors="replace").replace("\r\n", "\n")
                except OSError:
                    break
            match = re.search(pattern, self.text, re.DOTALL)
            if match:
                return match
        raise AssertionError(f"{pattern!r} was not printed: {self.text[-1500:]}")


def _readme_block(language):
    """The first block of README.md in this language."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    expect(match, f"README.md has no block of {language}")
    return match[1]


def run(report):
    """Serves the shipped routes, and does what the terminal says."""
    mark = os.urandom(8).hex()
    directory = Path(tempfile.mkdtemp(prefix="tg-first-"))
    shutil.copytree(REPOSITORY / "routes.d", directory / "routes.d")
    # Only the ports differ from the defaults, as those may be taken.
    ports = [free_port() for _ in range(3)]
    (directory / "tidegate.toml").write_text(
        f'[gateway]\nlisten = ["127.0.0.1:{ports[0]}"]\n[admin]\nlisten = "127.0.0.1:{ports[1]}"\n'
        f'[metrics]\nlisten = "127.0.0.1:{ports[2]}"\n', encoding="utf-8")
    began = time.monotonic()
    terminal = _Terminal(directory, mark)
    try:
        with report.check("first run: the terminal shows a curl line") as check:
            line = terminal.read_until(r"(?:^|\n)(curl (?:[^\n]*\\\n)*[^\n]*[^\\\n])\n", 30)
            check.figure = f"after {time.monotonic() - began:.2f} s"
        with report.check("first run: the curl line works as it is pasted") as check:
            done = subprocess.run(
                ["bash", "-c", line[1]], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=60, check=False)
            expect(done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr[-300:]}")
            answer = json.loads(done.stdout)
            expect(answer["choices"][0]["message"]["content"], f"{answer}")
            check.figure = f"{answer['model']} answered {time.monotonic() - began:.1f} s after the first start"
        with report.check("first run: the Python lines of README.md work as they are written") as check:
            script = _readme_block("python").replace("127.0.0.1:8443", f"127.0.0.1:{ports[0]}")
            done = subprocess.run(
                [sys.executable, "-c", script], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=60, check=False)
            expect(done.returncode == 0, f"{done.stderr.strip()[-300:]}")
            check.figure = done.stdout.strip()[:60]
        with report.check("first run: keys and tokens are for their owner only"):
            for name in ("certs/server.key", "certs/tokens.key", ".tidegate/demo.token", ".tidegate/admin.sock"):
                mode = (directory / name).stat().st_mode & 0o777
                expect(mode & 0o077 == 0, f"{name} has mode {mode:o}")
        with report.check("first run: Ctrl-C ends it, exit code 0") as check:
            os.kill(terminal.process.pid, signal.SIGINT)
            code = terminal.process.wait(60)
            expect(code == 0, f"exit code {code}: {terminal.text[-500:]}")
            left = [" ".join(processes.arguments(pid))[:80] for pid in processes.marked(mark)]
            check.figure = f"{len(left)} workers go on, as it says"
    finally:
        processes.end_marked(mark)
        shutil.rmtree(directory, ignore_errors=True)
