"""Start, offload, wake, stop, crash and adoption of real workers."""

import os
import signal
import threading
import time

import openai

from checks import processes
from checks.openai_client import hello, raised
from checks.report import expect, wait_for
from real_vllm.data_plane import GO_ON

#: Most seconds for two workers to start at once on two cores.
START_MAX = 420


class Asked(threading.Thread):
    """One request in the background; `answer` waits for what came of it."""

    def __init__(self, served):
        super().__init__(daemon=True)
        self._served = served
        self._result = self._error = None
        self.took = None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            sdk = self._served.sdk(timeout=START_MAX)
            self._result = sdk.chat.completions.with_raw_response.create(
                model=self._served.model, messages=hello(), max_tokens=8, temperature=0, extra_body=GO_ON)
        except Exception as error:  # raised by answer()
            self._error = error
        self.took = time.monotonic() - began

    def answer(self):
        """Text, and milliseconds held for the worker (0 when not held)."""
        self.join(START_MAX + 30)
        if self._error:
            raise self._error
        expect(self._result is not None, "no answer in time")
        held = int(self._result.headers.get("x-tidegate-cold-start-ms", 0))
        return self._result.parse().choices[0].message.content, held


def cold_start(report, name, group, requests_each):
    """Requests to stopped models: held, one worker each, all answered. Returns the texts."""
    texts = {}
    asked = [(served, Asked(served)) for served in group for _ in range(requests_each)]
    for served in group:
        with report.check(f"{served.model}: {name}") as check:
            mine = [request for one, request in asked if one is served]
            answers = [request.answer() for request in mine]
            expect(all(held > 0 for _, held in answers), f"not held: {answers}")
            expect(len({text for text, _ in answers}) == 1, f"different texts: {answers}")
            texts[served.model] = answers[0][0]
            shown = served.gateway.deployment(served.identifier)
            expect(shown["pid"] and shown["residency"] == "gpu", f"{shown}")
            members = len(processes.in_session(processes.session_of(shown["pid"])))
            check.figure = (
                f"{len(answers)} held {answers[0][1] / 1000:.1f} s, worker {shown['pid']} with "
                f"{members} processes"
            )
    return texts


def one_worker(report, served):
    """All the requests that came at once started one worker."""
    with report.check(f"{served.model}: requests at the same time started one worker") as check:
        pid = served.worker().pid
        heads = [other for other in processes.marked(served.gateway.mark)
                 if {"--uds", served.model} <= set(processes.arguments(other))
                 # Its keeper's arguments end with its own.
                 and "worker-keep" not in processes.arguments(other)]
        expect(heads == [pid], f"API servers {heads}, shown {pid}")
        check.figure = f"pid {pid}"


def offload_and_wake(report, served, shape, text):
    """Idle: the weights leave. A request: they are back, in the same process."""
    gateway, worker = served.gateway, served.worker()
    with report.check(f"{served.model}: idle for a while, it is offloaded") as check:
        began = time.monotonic()
        gateway.route("tiny", shape(offload_after="1s", time_limit="1h"))
        gateway.wait_shown(served.identifier, "residency", "cpu", 60)
        expect(worker.is_sleeping(), "vLLM says that it is awake")
        expect(gateway.deployment(served.identifier)["pid"] == worker.pid, "another process")
        check.figure = f"asleep {time.monotonic() - began:.1f} s after the file was changed"
    gateway.route("tiny", shape())
    with report.check(f"{served.model}: a request wakes it") as check:
        request = Asked(served)
        answer, held = request.answer()
        expect(answer == text, f"{answer!r}, before {text!r}")
        expect(not worker.is_sleeping(), "vLLM says that it sleeps")
        expect(gateway.deployment(served.identifier)["pid"] == worker.pid, "another process")
        check.figure = f"answered after {request.took:.2f} s, held {held} ms"


def idle_stop(report, served, shape):
    """Idle for longer: the worker is stopped, and nothing of it is left."""
    gateway, worker = served.gateway, served.worker()
    session = processes.session_of(worker.pid)
    with report.check(f"{served.model}: idle for longer, it is stopped") as check:
        began = time.monotonic()
        gateway.route("tiny", shape(offload_after="500ms", time_limit="1s"))
        shown = gateway.wait_shown(served.identifier, "phase", "stopped", 90)
        check.figure = f"{time.monotonic() - began:.1f} s after the file was changed"
        expect(shown["status"] == "stopped" and shown["pid"] is None, f"{shown}")
        expect(not processes.in_session(session), f"left: {processes.in_session(session)}")
        expect(not os.path.exists(worker.socket), f"{worker.socket} is left")
    gateway.route("tiny", shape())


def killed_gateway(report, group, texts):
    """SIGKILL of Tidegate: the workers live on, and the next start adopts them."""
    gateway = group[0].gateway
    before = {served.model: served.worker().pid for served in group}
    with report.check("SIGKILL of Tidegate: the workers live on") as check:
        gateway.kill()
        time.sleep(1)  # what would die with it has a moment to do so
        expect(all(processes.is_alive(pid) for pid in before.values()), f"gone: {before}")
        check.figure = f"pids {list(before.values())}"
    began = time.monotonic()
    gateway.start()
    with report.check("the next start adopts them: same pids, no cold start, serving within seconds") as check:
        took = {}
        for served in group:
            request = Asked(served)
            answer, held = request.answer()
            expect(answer == texts[served.model], f"{answer!r}, before {texts[served.model]!r}")
            expect(held < 5000, f"held for {held} ms")
            took[served.model] = time.monotonic() - began
        after = {served.model: served.worker().pid for served in group}
        expect(after == before, f"{after}, before {before}")
        check.figure = ", ".join(f"{model} answers {took[model]:.1f} s after the start" for model in took)
        expect(max(took.values()) < 15, "too late")


def killed_server(report, served, text):
    """SIGKILL of the API server alone: its engine processes go too, and another follows."""
    pid = served.worker().pid
    session = processes.session_of(pid)
    members = processes.in_session(session)
    with report.check("SIGKILL of vLLM's API server: an open stream ends with an error") as check:
        stream = served.sdk().chat.completions.create(
            model=served.model, messages=hello(), max_tokens=served.tokens_max, stream=True, extra_body=GO_ON)
        events = iter(stream)
        next(events)
        expect(len(members) >= 3, f"only {members}")
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        error = raised(openai.APIError, lambda: list(events))
        check.figure = f"{type(error).__name__}: {error.message}"
    # Nobody has noticed yet, as a rule: its engine processes live for a moment.
    asked = [Asked(served) for _ in range(2)]
    with report.check("SIGKILL of vLLM's API server: no process of it is left") as check:
        wait_for(f"an empty session {session}", lambda: not processes.in_session(session), 15, pause=0.05)
        check.figure = f"{len(members)} processes gone {time.monotonic() - killed:.1f} s after the kill"
    with report.check("SIGKILL of vLLM's API server: requests at that moment wait for the next") as check:
        answers = [request.answer() for request in asked]
        expect(all(answer == text and held > 0 for answer, held in answers), f"{answers}, before {text!r}")
        check.figure = f"held {answers[0][1] / 1000:.1f} s, worker {served.worker().pid} instead of {pid}"


def end(report, gateway, group):
    """`tidegate stop` and SIGTERM: nothing is left."""
    sessions = [processes.session_of(served.worker().pid) for served in group]
    with report.check("tidegate stop: the workers end, requests are refused for good") as check:
        began = time.monotonic()
        for instance in sorted({served.identifier.split("/")[0] for served in group}):
            gateway.run("stop", instance)
        for served in group:
            gateway.wait_shown(served.identifier, "phase", "stopped", 60)
        check.figure = f"{time.monotonic() - began:.1f} s"
        left = [pid for session in sessions for pid in processes.in_session(session)]
        expect(not left, f"left: {left}")
        error = raised(openai.InternalServerError, lambda: group[0].sdk().chat.completions.create(
            model=group[0].model, messages=hello()))
        expect(error.code == "model_stopped", f"{error.body}")
        expect(error.response.headers["x-should-retry"] == "false", f"{error.response.headers}")
    with report.check("SIGTERM: exit code 0, no process left") as check:
        began = time.monotonic()
        code = gateway.stop()
        expect(code == 0, f"exit code {code}: {gateway.log()[-400:]}")
        left = processes.marked(gateway.mark)
        expect(not left, f"left: {[processes.arguments(pid) for pid in left]}")
        check.figure = f"{time.monotonic() - began:.1f} s"
