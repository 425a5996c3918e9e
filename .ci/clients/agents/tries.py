"""What happens to agents: cold starts, 429, expired tokens, servers that die, Ctrl-C, models that failed."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from checks.report import expect, wait_for
from clients.agents import kinds

#: Seconds that a model takes to load here; `.ci/run` waits 20, a longer run 330.
COLD = int(os.environ.get("TIDEGATE_CI_COLD", "20"))

#: How long an agent may take beside that: several start at once on two CPUs.
START_MAX = 60

#: Words of ours in what an agent shows.
CUT_WORDS = "The server of this model broke off within its answer"
FULL_WORDS = "concurrent requests is reached"
FAILED_WORDS = "The model could not be started"


class Ask:
    """One run of an agent, in a home of its own. Use it in a `with` block."""

    def __init__(self, gateway, agent, model, token):
        self._home = tempfile.TemporaryDirectory(prefix="tg-agent-", ignore_cleanup_errors=True)
        self.home, self.url, self.ca, self.agent = Path(self._home.name), gateway.url, str(gateway.ca), agent.name
        self.model, self.token = model, token
        self._log = self.home / "output.log"
        command, variables = agent.command(self), agent.variables(self)
        mark = {name: value for name, value in gateway.environment.items() if name == "TIDEGATE_CI_MARK"}
        work = self.home / "work"
        work.mkdir()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=work, env={**variables, **mark}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        self.began = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._kill()
        self._home.cleanup()

    def _kill(self):
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(20)

    def text(self):
        """What it has shown so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds):
        """Waits for its end; exit code and seconds."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on after {seconds} s: {self.tail()}") from None
        return code, time.monotonic() - self.began

    def says(self, words):
        """Whether it has shown these words, wherever it broke the lines."""
        return words in " ".join(self.text().split())

    def tail(self):
        """The end of what it has shown."""
        return " / ".join(self.text().split("\n"))[-700:]

    def interrupt(self):
        """Ctrl-C, as a terminal sends it: to all of the group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def is_over(self):
        """Whether it ended."""
        return self._process.poll() is not None


def _requests(gateway, model):
    """Lines of the access log about a model."""
    lines = (gateway.directory / "access.log").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if f'"{model}' in line]
    return [line for line in found if model in json.dumps(line)]


def _answered(gateway, ask, seconds):
    code, took = ask.wait(seconds)
    expect(code == 0, f"exit code {code} after {took:.0f} s: {ask.tail()}")
    # Those that write what they did as well write more than the answer.
    expect(any(line.get("status") == 200 for line in _requests(gateway, ask.model)), "no request was answered")
    expect(len(ask.text().split()) >= 5, f"no words: {ask.tail()}")
    return took


def cold(gateway, agent, token):
    """The first request starts the model, and is answered."""
    with Ask(gateway, agent, f"cold-{agent.name}", token) as ask:
        took = _answered(gateway, ask, COLD + START_MAX + (300 if COLD > 60 else 0))
        expect(took >= COLD * 0.9, f"answered after {took:.1f} s: it was not cold")
        return f"answered after {took:.0f} s, {len(_requests(gateway, ask.model))} requests"


class _Held:
    """The only place of a route, taken."""

    def __init__(self, gateway, model, token):
        context = ssl.create_default_context(cafile=gateway.ca)
        self._connection = http.client.HTTPSConnection("localhost", gateway.port, timeout=60, context=context)
        body = {"model": model, "messages": [{"role": "user", "content": "Hold."}], "stream": True,
                "max_tokens": 4000, "ignore_eos": True}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body),
                                 {"authorization": f"Bearer {token}", "content-type": "application/json"})
        answer = self._connection.getresponse()
        expect(answer.status == 200, f"{answer.status}")
        answer.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.free()

    def free(self):
        """Gives the place back."""
        self._connection.close()


#: These give up after three tries within some seconds.
_IMPATIENT = (kinds.AI_SDK, kinds.PYDANTIC, kinds.OPENAI_AGENTS)


def full(gateway, agent, token):
    """429: answered once there is a place, or our words are shown."""
    model = f"narrow-{agent.name}"
    with _Held(gateway, model, token) as held, Ask(gateway, agent, model, token) as ask:
        def refused():
            return [line for line in _requests(gateway, model) if line.get("status") == 429]

        if agent in _IMPATIENT:
            code, took = ask.wait(START_MAX)
            expect(code != 0 and ask.says(FULL_WORDS), f"exit code {code}: {ask.tail()}")
            return f"gave up after {took:.0f} s and {len(refused())} tries, with our words"
        wait_for("a 429", refused, START_MAX)
        held.free()
        took = _answered(gateway, ask, 120)
        return f"answered after {took:.0f} s and {len(refused())} refusals"


def expired(gateway, agent, token):
    """401 token_expired: told at once."""
    with Ask(gateway, agent, "plain", token) as ask:
        code, took = ask.wait(START_MAX)
        expect("expired" in ask.text(), f"exit code {code} after {took:.0f} s: {ask.tail()}")
        return f"told after {took:.1f} s, exit code {code}"


def cut(gateway, agent, token):
    """A server that dies mid-stream: its end is told in our words."""
    with Ask(gateway, agent, "cut", token) as ask:
        # aider tells it at once, and tries for more than a minute; opencode tells it at the end.
        wait_for("its end", lambda: ask.says(CUT_WORDS) or ask.is_over(), 150)
        took = time.monotonic() - ask.began
        if agent is kinds.CLAUDE:
            # It asks once more without a stream, which this server answers.
            _answered(gateway, ask, 1)
            return f"answered after {took:.0f} s, without a stream"
        expect(ask.says(CUT_WORDS), f"after {took:.0f} s: {ask.tail()}")
        return f"told after {took:.0f} s"


def interrupted(gateway, agent, token):
    """Ctrl-C within a stream frees its place."""
    model = f"slow-{agent.name}"

    def busy():
        return gateway.metrics().sum("tidegate_in_flight_requests", deployment=f"{model}/{model}") > 0

    with Ask(gateway, agent, model, token) as ask:
        wait_for(f"a request ({ask.text()[-200:]})", busy, START_MAX)
        time.sleep(1)  # within the stream, which takes a minute
        ask.interrupt()
        began, note = time.monotonic(), ""
        try:
            wait_for("a free place", lambda: not busy(), 8, pause=0.02)
        except AssertionError:
            # opencode without a terminal does not listen to it now and then.
            expect(agent is kinds.OPENCODE and not ask.is_over(), f"the place stays: {ask.tail()}")
            ask.__exit__()
            began, note = time.monotonic(), ", killed: it does not listen to SIGINT"
            wait_for("a free place", lambda: not busy(), 2, pause=0.02)
        return f"free after {(time.monotonic() - began) * 1000:.0f} ms{note}"


def failed(gateway, agent, token):
    """A model that failed for good: given up at once, with our words."""
    model = f"failing-{agent.name}"
    with Ask(gateway, agent, model, token) as ask:
        code, took = ask.wait(START_MAX)
        expect(ask.says(FAILED_WORDS), f"exit code {code} after {took:.0f} s: {ask.tail()}")
        told = [line["status"] for line in _requests(gateway, model) if line.get("status") in (400, 503)]
        # opencode asks for a title as well.
        most = 2 if agent is kinds.OPENCODE else 1
        asked = told.count(400)
        expect(1 <= asked <= most, f"{told}")
        return f"given up after {took:.1f} s, exit code {code}, {asked} requests"
