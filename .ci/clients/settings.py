"""What `tidegate client` prints, used as it stands: a shell takes the lines, an interpreter the program, a client its file."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks.report import expect
from checks.tidegate import binary
from clients.stand_in import PLAIN


class _Person:
    """Someone with a token in a file, an empty home, and the words for `tidegate client`."""

    def __init__(self, gateway, token, home):
        self.home = Path(home)
        secret = self.home / "my token"
        secret.write_text(token + "\n", encoding="utf-8")
        self._words = ["--url", gateway.url, "--model", PLAIN, "--ca", str(gateway.ca), "--token-file", str(secret)]
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": home, "LANG": "C.UTF-8", "TMPDIR": home}

    def ask(self, command, **more):
        """Runs a command at home; what it wrote to its output."""
        done = subprocess.run(
            command, cwd=self.home, env={**self.environment, **more}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=120, check=False)
        expect(done.returncode == 0, f"{command[0]}: exit code {done.returncode}: {done.stdout[-200:]} {done.stderr[-400:]}")
        return done.stdout

    def told(self, name, *more):
        """What `tidegate client` says of a client."""
        return self.ask([binary(), "client", name, *self._words, *more])


def run(report, gateway, token):
    """All checks of these settings."""
    for name, tried in (("curl", _curl), ("openai-python", _python), ("openai-node", _node), ("llm", _llm)):
        with report.check(f"tidegate client {name}: used as it stands, it is answered") as check, \
                tempfile.TemporaryDirectory(prefix="tg-settings-") as home:
            person = _Person(gateway, token, home)
            check.figure = tried(person).strip()[:60]
            expect(check.figure, "no answer")
            expect(token not in person.told(name), "the token is printed")


def _curl(person):
    answer = json.loads(person.ask(["bash", "-c", person.told("curl")]))
    return answer["choices"][0]["message"]["content"]


def _python(person):
    told = json.loads(person.told("openai-python", "--json"))
    return person.ask([sys.executable, "-c", told["code"]], **told["environment"])


def _node(person):
    told = json.loads(person.told("openai-node", "--json"))
    script = person.home / "ask.mjs"
    script.write_text(told["code"], encoding="utf-8")
    (person.home / "node_modules").symlink_to(Path(os.environ["TIDEGATE_CI_NODE"], "node_modules"))
    return person.ask(["node", str(script)], **told["environment"])


def _llm(person):
    shown = person.told("llm", "--write")
    expect("\n+- model_id: tidegate\n" in shown, f"no diff: {shown}")
    again = person.told("llm", "--write")
    expect("already" in again, f"written twice: {again}")
    # What is left for the shell: variables, and a first question.
    return person.ask(["bash", "-c", "\n".join(line for line in again.splitlines() if "already" not in line)])
