"""SIGKILL of either gateway at random moments of a take-over, under load: one serves on, nobody is refused, no usage is lost.

TIDEGATE_CI_KILLS=100 makes it so many kills instead of some.
"""

import http.client
import json
import os
import random
import secrets
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from checks import processes
from checks.report import expect, wait_for
from checks.tidegate import Tidegate, binary, free_port
from traffic.engines import Engine, body

#: Kills of a long run; of a short one, the most of them and the seconds after which it begins no more.
_LONG = int(os.environ.get("TIDEGATE_CI_KILLS", "0"))
_KILLS, _SECONDS = 6, 15
#: Clients at once, each with a connection for each request; every other one asks for a stream.
_CLIENTS = 4


class Load:
    """Clients that ask one after the other until they are told to end."""

    def __init__(self, port, token):
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._ending, self._lock = threading.Event(), threading.Lock()
        #: How many were answered whole, found nobody who listens, and broke off; what else was answered.
        self.answered, self.refused, self.broken, self.others = 0, 0, 0, set()
        self._threads = [threading.Thread(target=self._run, args=(bool(n % 2),), daemon=True) for n in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, streams):
        data = json.dumps(body("take", 3) | {"stream": streams}).encode()
        while not self._ending.is_set():
            outcome = self._one(data, streams)
            with self._lock:
                self.answered += outcome == "answered"
                self.refused += outcome == "refused"
                self.broken += outcome == "broken"
                if outcome not in ("answered", "refused", "broken"):
                    self.others.add(outcome)

    def _one(self, data, streams):
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, data, self._headers), timeout=20) as answer:
                text = answer.read()
            if streams:
                return "answered" if text.endswith(b"data: [DONE]\n\n") else "broken"
            json.loads(text)
            return "answered"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read()[:200]!r}"
        except urllib.error.URLError as error:
            return "refused" if isinstance(error.reason, ConnectionRefusedError) else "broken"
        except (OSError, ValueError, http.client.HTTPException):
            return "broken"

    def end(self):
        """Ends all of them after the request that each has."""
        self._ending.set()
        for thread in self._threads:
            thread.join(30)
        expect(not any(thread.is_alive() for thread in self._threads), "a client still waits for its answer")


def _gateways(gateway):
    """The processes that serve; a successor is started by the one before it."""
    return [pid for pid in processes.marked(gateway.mark) if "serve" in processes.arguments(pid)]


def _only(gateway):
    """The one that serves; a program that it starts has its arguments for a moment."""
    return wait_for("there is one gateway", lambda: len(found := _gateways(gateway)) == 1 and found[0], 20, pause=0.01)


class Round:
    """One take-over and one kill within it, at a part of the time that an undisturbed one takes."""

    def __init__(self, gateway, port, victim, after):
        self.victim, self.after, self.workspace = victim, after, f"w{secrets.token_hex(4)}"
        self.used = None
        token = gateway.token("--workspace", self.workspace)
        self._gateway, self._old = gateway, _only(gateway)
        self._said = len(gateway.log())
        self.load = Load(port, token)
        try:
            wait_for("all clients have been answered", lambda: self.load.answered >= 2 * _CLIENTS, 20, pause=0.01)
            began = time.monotonic()
            with (gateway.directory / "serve.log").open("ab") as log:
                new = subprocess.Popen([binary(), "serve", "--take-over"], cwd=gateway.directory, env=gateway.environment,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            threading.Thread(target=new.wait, daemon=True).start()
            if victim == "old":
                # Before the sockets pass nobody else has them.
                wait_for("the sockets have passed", lambda: "taking over" in self._log(), 20, pause=0.002)
            time.sleep(max(0.0, began + after - time.monotonic()))
            #: Whether the kill came while both were needed.
            self.hit = self._kill(self._old if victim == "old" else new.pid)
            wait_for("one gateway is left, and serves", self._is_one, 60, pause=0.05)
            self.took = time.monotonic() - began
            answered = self.load.answered
            wait_for("clients are answered", lambda: self.load.answered >= answered + 2 * _CLIENTS, 20, pause=0.01)
        finally:
            self.load.end()

    def _log(self):
        return self._gateway.log()[self._said:]

    def _kill(self, pid):
        try:
            return self.victim != "none" and self._kill_within(pid)
        except ProcessLookupError:
            return False  # it was over

    def _kill_within(self, pid):
        if self.victim == "old":
            if not processes.is_alive(pid):
                return False
            os.kill(pid, signal.SIGKILL)
            return True
        # It stands still meanwhile: once it knows that the new one serves, that one is the only one.
        os.kill(self._old, signal.SIGSTOP)
        hit = "the new gateway serves" not in self._log()
        if hit:
            os.kill(pid, signal.SIGKILL)
        os.kill(self._old, signal.SIGCONT)
        return hit

    def _is_one(self):
        gateway = self._gateway
        try:
            if len(_gateways(gateway)) != 1 or gateway.get("/readyz")[0] != 200:
                return False
        except OSError:
            return False  # whoever accepted it was killed
        return gateway.run("ps", check=False).returncode == 0

    def count(self):
        """Reads what is counted, once no gateway runs."""
        told = json.loads(self._gateway.run("token", "usage", "--json", "--workspace", self.workspace).stdout)
        self.used = sum(owner["requests"] for owner in told)

    def wrong(self):
        """What must not be."""
        load = self.load
        if load.refused or load.others or load.broken > _CLIENTS:
            yield "refused or broken"
        # One that broke off may have been answered, and not have arrived.
        if not load.answered <= self.used <= load.answered + load.broken:
            yield f"{load.answered - self.used} not counted"

    def __str__(self):
        load = self.load
        return (f"{self.victim} killed after {self.after * 1000:.0f} ms: {load.answered} answered, {self.used} counted, "
                f"{load.refused} refused, {load.broken} broken off, others {sorted(load.others)[:3]}")


def _rounds(gateway, port, dice):
    """Kills old and new in turn."""
    # How long it takes undisturbed.
    rounds, began = [Round(gateway, port, "none", 0.0)], time.monotonic()
    while (done := sum(one.hit for one in rounds)) < (_LONG or _KILLS):
        if not _LONG and done > 1 and time.monotonic() - began > _SECONDS:
            break
        rounds.append(Round(gateway, port, ("old", "new")[done % 2], dice.uniform(0, rounds[0].took)))
        if _LONG:
            print(f"      {done}: {rounds[-1]}", flush=True)
    return rounds


def run(report, seed):
    """Take-overs with kills; what was used is read when all have ended."""
    port, dice = free_port(), random.Random(seed)
    with Tidegate('[gpus]\nsource = "none"\n', gateway_settings=f'plain_listen = ["127.0.0.1:{port}"]\n') as gateway:
        engine = Engine({**os.environ, **gateway.environment})
        try:
            gateway.route("take", f'[route]\nname = "take"\npublic = true\n{engine.upstream()}')
            gateway.start()
            threading.Thread(target=gateway.process.wait, daemon=True).start()
            with report.check("kills within a take-over: one serves, none is refused, no usage is lost") as check:
                rounds = _rounds(gateway, port, dice)
                last = _only(gateway)
                os.kill(last, signal.SIGTERM)
                wait_for("the last one has ended", lambda: not processes.is_alive(last), 60, pause=0.02)
                for one in rounds:
                    one.count()
                hit = [one for one in rounds if one.hit]
                check.figure = (
                    f"{len(hit)} kills, {sum(one.victim == 'old' for one in hit)} of them of the old one; an undisturbed take-over "
                    f"{rounds[0].took:.2f} s; {sum(one.load.answered for one in rounds)} answered, {sum(one.used for one in rounds)} counted, "
                    f"{sum(one.load.refused for one in rounds)} refused, {sum(one.load.broken for one in rounds)} broken off; seed {seed}")
                bad = [f"{', '.join(wrong)}: {one}" for one in rounds if (wrong := list(one.wrong()))]
                expect(not bad, f"{len(bad)} rounds: {bad[:5]}")
        finally:
            engine.kill()
