"""Output that no one takes, logs that are moved away, DNS that drops packets: what the process costs then, and who notices."""

import contextlib
import http.client
import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from checks.report import expect, skip, wait_for
from checks.tidegate import Tidegate, binary
from traffic.engines import body

#: Lines of an access log: one a second, a day long. TIDEGATE_CI_LINES asks for others.
LINES = int(os.environ.get("TIDEGATE_CI_LINES", str(24 * 3600)))
#: What may be different afterwards: the pools of a gateway that has worked.
THREADS, DESCRIPTORS, BYTES = 4, 8, 24 << 20
#: Seconds that other routes' requests may take longer while a name is not answered, at p99: a look-up takes 5 or more.
P99 = 0.25
#: Seconds of requests to a name that no one answers.
SECONDS = int(os.environ.get("TIDEGATE_CI_DNS", "20"))


class Cost:
    """Threads, descriptors and memory of a process."""

    def __init__(self, gateway):
        process = Path(f"/proc/{gateway.process.pid}")
        status = (process / "status").read_text(encoding="ascii")
        self.threads = int(re.search(r"Threads:\s*(\d+)", status)[1])
        self.descriptors = len(list((process / "fd").iterdir()))
        self.bytes = int(re.search(r"VmRSS:\s*(\d+)", status)[1]) << 10

    def __str__(self):
        return f"{self.threads} threads, {self.descriptors} descriptors, {self.bytes >> 20} MiB"

    def expect_flat(self, after):
        """Fails where the later cost is above this one."""
        expect(after.threads <= self.threads + THREADS and after.descriptors <= self.descriptors + DESCRIPTORS
               and after.bytes <= self.bytes + BYTES, f"{self} became {after}")


class Elsewhere(Tidegate):
    """A gateway whose output goes where the check says, or that is started by another program."""

    def start_with(self, output, before=()):
        """Starts it; `output` is a descriptor."""
        self.process = subprocess.Popen(
            [*before, binary(), "serve"], cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True)
        wait_for("tidegate is ready", self._ready, 30, pause=0.02)


@contextlib.contextmanager
def _left_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def _full_pipe():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


@contextlib.contextmanager
def _full_disk():
    writer = os.open("/dev/full", os.O_WRONLY)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def _closed_terminal():
    master, slave = pty.openpty()
    os.close(master)
    yield slave
    os.close(slave)


BROKEN = {"a pipe that was left": _left_pipe, "a pipe that no one reads": _full_pipe, "a full disk": _full_disk,
          "a closed terminal": _closed_terminal}


def _h2load(gateway, token, *arguments):
    """Lists of models, one after the other; how many were answered with 200."""
    told = subprocess.run(
        ["h2load", "-c", "4", "-m", "4", *arguments, "-H", f"authorization: Bearer {token}", gateway.url + "/v1/models"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False).stdout
    counts = re.search(r"status codes: (\d+) 2xx", told)
    expect(counts, told[-400:])
    return int(counts[1])


def _chat(gateway, token, model):
    """Status of a chat."""
    told = subprocess.run(
        ["curl", "-sS", "--max-time", "30", "--cacert", gateway.ca, "-o", gateway.directory / "answer", "-w", "%{http_code}",
         "-H", f"authorization: Bearer {token}", "-H", "content-type: application/json",
         "-d", json.dumps(body(model)), gateway.url + "/v1/chat/completions"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return told.stdout or told.stderr


_SETTINGS = """
[gpus]
source = "simulated"
simulated = [{ memory = "20GiB" }]
"""

_LOCAL = """
[instance]
name = "local"
project = "research"
engine = "sim"
[[deployment]]
model = "stand/in"
endpoint_name = "local"
[deployment.sim]
load = "30ms"
weights = "10GiB"
"""


def _lost(gateway):
    """How many lines of the access log were lost, once that is more than half of them."""
    lost = gateway.metrics().sum("tidegate_access_log_dropped_total")
    return lost if lost > LINES / 2 else None


def _output(report):
    for name, output in BROKEN.items():
        with report.check(f"{name}: a day's log costs lines, and nothing else") as check, output() as place, \
                Elsewhere(_SETTINGS) as gateway:
            settings = gateway.directory / "tidegate.toml"
            settings.write_text(settings.read_text(encoding="utf-8").replace('"access.log"', '"stdout"', 1), encoding="utf-8")
            gateway.route("local", _LOCAL)
            gateway.start_with(place)
            token = gateway.token("--workspace", "checks", "--project", "research")
            _h2load(gateway, token, "-n", "2000")
            before = Cost(gateway)
            answered = _h2load(gateway, token, "-n", str(LINES))
            after = Cost(gateway)
            # Once a second it is reported.
            lost = wait_for("half of the lines are counted as lost", lambda: _lost(gateway), 10)
            first = _chat(gateway, token, "local")
            ready = gateway.get("/readyz")[0]
            began = time.monotonic()
            code = gateway.stop(20)
            check.figure = (f"{LINES} lines, {lost:.0f} lost and counted; {before} became {after}; the first request then: {first}; "
                            f"SIGTERM ended it after {time.monotonic() - began:.1f} s")
            expect(answered == LINES, f"{answered} answered")
            expect((first, ready, code) == ("200", 200, 0), f"a first request {first}, /readyz {ready}, exit code {code}")
            before.expect_flat(after)


def _rotation(report):
    with report.check("an access log moved away 100 times under load: each line is in one of the files") as check, \
            Tidegate('[gpus]\nsource = "none"\n') as gateway:
        gateway.start()
        token = gateway.token("--workspace", "checks")
        log, answered, moved = gateway.directory / "access.log", [], threading.Event()
        _h2load(gateway, token, "-n", "2000")
        before = Cost(gateway)

        def ask():
            while not moved.is_set():
                answered.append(_h2load(gateway, token, "-n", "20000"))

        load = threading.Thread(target=ask)
        load.start()
        try:
            for number in range(100):
                log.rename(gateway.directory / f"access.log.{number}")
                # What logrotate's recipes send, and nothing: the file that is gone is seen.
                wanted = (signal.SIGHUP, signal.SIGUSR1, None)[number % 3]
                if wanted:
                    gateway.process.send_signal(wanted)
                wait_for("the log is opened anew", log.exists, 10, pause=0.005)
        finally:
            moved.set()
            load.join(120)
        after = Cost(gateway)
        expect(gateway.stop(20) == 0, "it did not end well")
        lines = [line for path in gateway.directory.glob("access.log*") for line in path.read_text(encoding="utf-8").splitlines()]
        listed = sum(json.loads(line)["path"] == "/v1/models" for line in lines)
        check.figure = f"{sum(answered) + 2000} answered, {listed} lines; {before} became {after}"
        expect(set(answered) == {20000}, f"answered: {answered}")
        expect(listed == sum(answered) + 2000, "lines were lost")
        before.expect_flat(after)


class Probe(threading.Thread):
    """Chats with a server that is well, one after the other on one connection, until it is told to end."""

    def __init__(self, gateway, token):
        super().__init__()
        self.took, self.over, self._gateway, self._token = [], threading.Event(), gateway, token

    def run(self):
        trust = ssl.create_default_context(cafile=self._gateway.ca)
        link = http.client.HTTPSConnection("localhost", self._gateway.port, timeout=10, context=trust)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        while not self.over.wait(0.02):
            began = time.monotonic()
            link.request("POST", "/v1/chat/completions", json.dumps(body("lab")), headers)
            answer = link.getresponse()
            answer.read()
            self.took.append(time.monotonic() - began if answer.status == 200 else 60)
        link.close()

    def p99(self):
        """Seconds that 99 of 100 took at most."""
        self.over.set()
        self.join(20)
        return sorted(self.took)[int(len(self.took) * 0.99)]


@contextlib.contextmanager
def _silent_dns():
    """How to start a program whose only DNS server takes packets and never answers."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        own = Path(place) / "resolv.conf"
        own.write_text("nameserver 127.0.0.97\noptions timeout:5 attempts:2\n", encoding="ascii")
        before = ["unshare", "--mount", "sh", "-c", f'mount --bind {own} /etc/resolv.conf && exec "$0" "$@"']
        try:
            silent.bind(("127.0.0.97", 53))
            possible = subprocess.run([*before, "true"], capture_output=True, check=False).returncode == 0
        except OSError:
            possible = False
        yield before if possible else None


def _dns(report, engine):
    with _silent_dns() as before_it:
        if before_it is None:
            skip("DNS that drops packets: no mount namespace, or no port 53, for this user")
            return
        with report.check(f"a DNS server that drops packets, 100 requests a second for {SECONDS} s: no one else notices") as check, \
                Elsewhere(_SETTINGS) as gateway, (gateway.directory / "serve.log").open("ab") as log:
            gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
            gateway.route("lost", '[route]\nname = "lost"\npublic = true\n[[upstream]]\nurl = "http://inference.test:8000"\n')
            gateway.start_with(log, before_it)
            token = gateway.token("--workspace", "checks", "--project", "research")
            calm = Probe(gateway, token)
            calm.start()
            wait_for("enough was seen", lambda: len(calm.took) > 100, 30)
            usual, before, probe = calm.p99(), Cost(gateway), Probe(gateway, token)
            with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as text:
                json.dump(body("lost"), text)
                text.flush()
                load = subprocess.Popen(
                    ["h2load", "-c", "20", "-m", "100", "--rps", "5", "-D", str(SECONDS), "-H", f"authorization: Bearer {token}",
                     "-H", "content-type: application/json", "-d", text.name, gateway.url + "/v1/chat/completions"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                probe.start()
                most, began, late = 0, time.monotonic(), None
                while load.poll() is None:
                    most = max(most, Cost(gateway).threads)
                    if late is None and time.monotonic() - began > SECONDS / 2:
                        gateway.route("local", _LOCAL)
                        asked = time.monotonic()
                        first = wait_for("the new file is read", lambda: (told := _chat(gateway, token, "local")) != "404" and told, 20)
                        late = time.monotonic() - asked
                    time.sleep(0.1)
            meanwhile = probe.p99()
            check.figure = (f"{before.threads} threads, {most} at most; a chat elsewhere {1000 * usual:.0f} ms at p99, {1000 * meanwhile:.0f} ms "
                            f"meanwhile; a new file's model answered after {late:.1f} s")
            expect(most <= before.threads + THREADS, "threads gather")
            expect(first == "200" and late < 5, f"a new file's model: {first}")
            expect(meanwhile <= usual + P99, "others wait")
            told = gateway.run("ps").stdout
            expect("name" in told and "inference.test" in told, f"`ps` does not say that the name has no answer: {told}")


def run(report, engine):
    """Each of the three."""
    _output(report)
    _rotation(report)
    _dns(report, engine)
