"""python3 -m crashes: SIGKILL at system calls of start, sleep, wake and stop; then the next start puts all in order.
And SIGKILL of either gateway within a take-over.

TIDEGATE_CI_CRASHES=all tries every call that was seen, TIDEGATE_CI_SEED=n chooses those of an earlier run,
TIDEGATE_CI_KILLS=100 makes it so many kills within take-overs, and nothing else.
"""

import http.client
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from checks import processes, unix_http
from checks.report import Report, exit_on_sigterm, expect, skip, wait_for
from checks.tidegate import Tidegate
from crashes import takeover
from crashes.points import CALLS, Strace, chosen, seen

#: Kills of a run, and the seconds after which it begins no more of them.
_KILLS, _SECONDS = 24, 75
#: How long a transition may take until its call comes.
_REACHED = 3

_SETTINGS = """
[gpus]
source = "simulated"
simulated = [{ memory = "20GiB" }]
[workers]
stop_grace = "2s"
"""

_INSTANCE = """
[instance]
name = "{name}"
project = "research"
engine = "sim"
[instance.options]
{option} = true
[[deployment]]
model = "stand/in"
endpoint_name = "{name}"
[deployment.sim]
load = "30ms"
wake = "20ms"
sleep = "20ms"
weights = "10GiB"
"""

#: By name: whose transition, the state before it, and how it begins.
_TRANSITIONS = {
    "start": ("one", "stopped", "start"),
    "sleep 1": ("one", "ready", "offload"),
    "wake 1": ("one", "offloaded", "ask"),
    "sleep 2": ("two", "ready", "offload"),
    "wake 2": ("two", "offloaded", "ask"),
    "stop": ("one", "ready", "stop"),
}


class World:
    """A gateway with two models on one GPU, which dies and comes back."""

    def __init__(self, gateway):
        self.gateway = gateway
        gateway.route("one", _INSTANCE.format(name="one", option="automatic_cpu_offloading"))
        gateway.route("two", _INSTANCE.format(name="two", option="disk_swapping"))
        gateway.start()
        self._token = gateway.token("--workspace", "w1", "--project", "research")
        self._tls = ssl.create_default_context(cafile=gateway.ca)

    def ask(self, model):
        """One request; the words of the answer."""
        body = json.dumps({"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "Hello!"}]})
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        request = urllib.request.Request(self.gateway.url + "/v1/chat/completions", body.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._tls) as answer:
                return json.load(answer)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{error.code} {error.read().decode()}") from None

    def _api(self, method, path):
        return unix_http.ask(str(self.gateway.directory / ".tidegate" / "admin.sock"), method, f"/api/v1/{path}", None)

    def _phases(self):
        instances = json.loads(self._api("GET", "instances"))
        return {d["endpoint"]: d["phase"] for instance in instances for d in instance["deployments"]}

    def _reach(self, model, phase):
        wait_for(f"{model} is {phase}", lambda: self._phases()[model] == phase, 20, pause=0.02)

    def _command(self, model, command):
        self._api("POST", f"instances/{model}/{command}")

    def prepare(self, model, phase):
        """Brings a model into the phase that a transition begins in; the other one has no worker."""
        if phase != "stopped":
            self._command(model, "start")
            self._reach(model, "ready")
        if phase == "offloaded":
            self._command(model, "offload")
            self._reach(model, "offloaded")

    def begin(self, model, how):
        """Begins a transition beside this thread; nobody hears how it ends."""
        def run():
            try:
                self.ask(model) if how == "ask" else self._command(model, how)
            except (AssertionError, OSError, ValueError, http.client.HTTPException):
                pass  # the gateway is killed in it

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def ended(self, model, how):
        """Waits until a transition is over that nothing disturbed."""
        over = {"ask": "ready", "start": "ready", "offload": "offloaded", "stop": "stopped"}
        self._reach(model, over[how])

    def rest(self):
        """Stops what runs."""
        for model, phase in self._phases().items():
            if phase != "stopped":
                self._command(model, "stop")
        for model in self._phases():
            self._reach(model, "stopped")

    def held(self):
        """Who holds memory of the GPU, by the ledger."""
        return [holder["deployment"] for gpu in json.loads(self._api("GET", "gpus"))["gpus"] for holder in gpu["held"]]

    def records(self):
        """What is written down of workers, by their leaders' pids."""
        files = (self.gateway.directory / ".tidegate" / "workers").glob("*.json")
        read = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        return {record["process"]["pid"]: record for record in read if record["process"]}

    def workers(self):
        """The processes of workers, whoever knows of them."""
        return [pid for pid in processes.marked(self.gateway.mark) if pid != self.gateway.process.pid]

    def strays(self):
        """Processes of workers that no record knows; a keeper ends by itself, soon after the last that it keeps."""
        leaders = set(self.records())
        return [pid for pid in self.workers()
                if processes.session_of(pid) not in leaders and "worker-keep" not in processes.arguments(pid)]

    def check(self):
        """What must hold after a start that follows a kill, and once all is stopped."""
        strays = self.strays()
        expect(not strays, f"no record knows {[(pid, processes.arguments(pid)[:4]) for pid in strays]}")
        for model in ("one", "two"):
            expect(self.ask(model), f"{model} answers nothing")
        strays = self.strays()
        expect(not strays, f"after requests no record knows {strays}")
        self.rest()
        wait_for("no process is left", lambda: not self.workers(), 10, pause=0.02)
        files = [path.name for path in (self.gateway.directory / ".tidegate" / "workers").iterdir()]
        expect(files == ["lock"], f"left in the journal: {files}")
        run = [path.name for path in (self.gateway.directory / ".tidegate" / "run").iterdir()]
        expect(not run, f"left in the run directory: {run}")
        expect(not self.held(), f"the ledger holds {self.held()}")
        expect("panicked" not in self.gateway.log(), "it panicked")


def find(world):
    """The calls of each transition, as they come when nothing disturbs it."""
    points = []
    for transition, (model, phase, how) in _TRANSITIONS.items():
        world.prepare(model, phase)
        with Strace(world.gateway.process.pid, f"--trace={','.join(CALLS)}") as strace:
            begun = world.begin(model, how)
            begun.join(20)
            world.ended(model, how)
        points += seen(transition, strace.calls())
        world.rest()
    return points


def kill(world, point):
    """Kills the gateway at a point; whether it was reached. The next start is checked either way."""
    model, phase, how = _TRANSITIONS[point.transition]
    world.prepare(model, phase)
    gateway = world.gateway
    inject = f"--inject={point.call}:signal=SIGKILL:when={point.nth}"
    with Strace(gateway.process.pid, f"--trace={point.call}", inject):
        world.begin(model, how)
        try:
            reached = gateway.process.wait(_REACHED) is not None
        except subprocess.TimeoutExpired:
            reached = False
    if not reached:
        gateway.kill()
    gateway.start()
    world.check()
    return reached


def run(report, seed):
    """Finds the points, and kills at each that is chosen."""
    with Tidegate(_SETTINGS) as gateway:
        world = World(gateway)
        points = []
        with report.check("crash points: the system calls of start, sleep, wake and stop") as check:
            points = find(world)
            check.figure = f"{len(points)} points"
            expect(len(points) > 30, f"fewer than there must be: {[str(point) for point in points]}")
        everything = os.environ.get("TIDEGATE_CI_CRASHES") == "all"
        tried = points if everything else chosen(points, _KILLS, seed)
        began, reached, done = time.monotonic(), 0, 0
        for point in tried:
            if not everything and time.monotonic() - began > _SECONDS:
                break
            ok = len(report.failed)
            with report.check(f"killed in {point}") as check:
                hit = kill(world, point)
                reached, done = reached + hit, done + 1
                check.figure = "" if hit else "not reached this time; killed after it"
            if len(report.failed) > ok and not _again(world):
                break
        report.note(f"TIDEGATE_CI_SEED={seed}: {done} kills of {len(points)} points, {reached} at their call, in "
                    f"{time.monotonic() - began:.0f} s")
        with report.check("most kills came at their call") as check:
            check.figure = f"{reached} of {done}"
            expect(reached * 2 > done, "the calls are not where they were")


def _again(world):
    """After a failed check: a world in order for the next one, if there can be."""
    try:
        if world.gateway.process.poll() is None:
            world.gateway.kill()
        processes.end_marked(world.gateway.mark)
        world.gateway.start()
        world.rest()
        return True
    except (AssertionError, OSError):
        return False


def main():
    """All of it, where a process may be traced."""
    exit_on_sigterm()
    report = Report("crashes")
    seed = int(os.environ.get("TIDEGATE_CI_SEED") or random.randrange(1 << 32))
    takeover.run(report, seed)
    if os.environ.get("TIDEGATE_CI_KILLS"):
        return report.finish()
    if not shutil.which("strace"):
        report.fail("crash points", "there is no strace: apt-get install strace")
        return report.finish()
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, timeout=20, check=False)
    if probe.returncode != 0:
        skip(f"crash points: processes can't be traced here: {probe.stderr.decode()[-200:]}")
        return report.finish()
    run(report, seed)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
