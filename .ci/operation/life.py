"""A gateway's life as systemd, curl, OpenSSL and an HTTP/2 client see it."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from checks.report import expect, wait_for
from checks.tidegate import Tidegate, binary
from operation.pki import authority, certificate, curl, openssl


class Stream:
    """A chat request of nghttp's, over HTTP/2, with the frames that it met."""

    def __init__(self, gateway, token, tokens):
        self._body, self._told = tempfile.NamedTemporaryFile("w", encoding="utf-8"), tempfile.TemporaryFile()
        json.dump({"model": "lab", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": tokens,
                   "ignore_eos": True, "stream": True}, self._body)
        self._body.flush()
        self._process = subprocess.Popen(
            ["nghttp", "-v", "--no-verify-peer", "-d", self._body.name, "-H", f"authorization: Bearer {token}",
             "-H", "content-type: application/json", gateway.url + "/v1/chat/completions"],
            stdin=subprocess.DEVNULL, stdout=self._told, stderr=self._told)
        wait_for("the stream has begun", lambda: '"content"' in self.told(), 10, pause=0.02)

    def told(self):
        """What nghttp has printed: frames and what came in them."""
        return os.pread(self._told.fileno(), 1 << 24, 0).decode(errors="replace")

    def whole(self, seconds=30):
        """Waits for its end; what came on the stream, and whether a GOAWAY without an error came."""
        code = self._process.wait(seconds)
        told = self.told()
        expect(code == 0, f"nghttp ended with {code}: {told[-400:]}")
        text = "".join(re.findall(r"^data: .*\n", told, re.MULTILINE))
        goodbye = re.search(r"recv GOAWAY frame.*\n.*error_code=NO_ERROR", told)
        return text, bool(goodbye)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(10)
        self._body.close()
        self._told.close()


def _route(gateway, engine):
    gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')


class Manager:
    """What a service manager hears: the datagrams of `sd_notify`."""

    def __init__(self, directory):
        self.path = str(Path(directory) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self.heard = []

    def hears(self, word, since=0, seconds=20):
        """Waits for a message with this word; its number."""
        def found():
            try:
                while True:
                    self.heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                pass
            return next((number for number, text in enumerate(self.heard) if number >= since and word in text.split()), None) is not None

        wait_for(f"{word} after {self.heard[since:]}", found, seconds, pause=0.02)
        return next(number for number, text in enumerate(self.heard) if number >= since and word in text.split())


def activation(report, engine):
    """systemd's own tool passes the socket; a datagram socket stands for the manager."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway, tempfile.TemporaryDirectory() as place:
        manager = Manager(place)
        _route(gateway, engine)
        # The keys are made by a first start; then no gateway runs.
        gateway.start()
        expect(gateway.stop() == 0, "exit code")
        token = gateway.token("--workspace", "w1")
        passed = [f"--setenv={name}={value}" for name, value in {
            **gateway.environment, "NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"}.items()
            if name.startswith("TIDEGATE") or name in ("PATH", "HOME", "NOTIFY_SOCKET", "WATCHDOG_USEC")]
        with report.check("systemd-socket-activate: the first connection starts it, and is answered") as check:
            with (gateway.directory / "serve.log").open("ab") as log:
                gateway.process = subprocess.Popen(
                    ["systemd-socket-activate", f"--listen=127.0.0.1:{gateway.port}", *passed, binary(), "serve"],
                    cwd=gateway.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            wait_for("it listens", lambda: "Listening on" in gateway.log(), 10)
            expect(curl(gateway.url, token, "lab", "--insecure")[0] == "200", gateway.log()[-500:])
            check.figure = f"pid {gateway.process.pid} has become tidegate"
        with report.check("sd_notify: ready, alive, reloading on SIGHUP, ready again, stopping") as check:
            ready = manager.hears("READY=1")
            expect(f"MAINPID={gateway.process.pid}" in manager.heard[ready].split(), manager.heard[ready])
            alive = manager.hears("WATCHDOG=1", ready)
            gateway.process.send_signal(signal.SIGHUP)
            reloading = manager.hears("RELOADING=1", alive)
            expect("MONOTONIC_USEC=" in manager.heard[reloading], manager.heard[reloading])
            manager.hears("READY=1", reloading + 1)
            expect(gateway.stop() == 0, "exit code")
            manager.hears("STOPPING=1", reloading)
            check.figure = ", ".join(dict.fromkeys(text.split()[0] for text in manager.heard))


def restart(report, engine):
    """A new process takes over while curl comes again and again and a stream goes on."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway:
        _route(gateway, engine)
        gateway.start()
        token = gateway.token("--workspace", "w1")
        statuses, over = [], threading.Event()

        def ask(*arguments):
            while not over.is_set():
                statuses.append(curl(gateway.url, token, "lab", "--cacert", gateway.ca, *arguments))

        with report.check("restart by --take-over, twice: no curl is refused, and a stream of before comes whole") as check:
            askers = [threading.Thread(target=ask, args=(http,)) for http in ("--http1.1", "--http2")]
            for asker in askers:
                asker.start()
            try:
                with Stream(gateway, token, 400) as stream:
                    old = []
                    for _ in range(2):
                        old.append(gateway.process)
                        gateway.start("--take-over")
                        before = len(statuses)
                        wait_for("more requests", lambda before=before: len(statuses) > before + 10, 30)
                    text, goodbye = stream.whole()
                    expect(text.count('"content"') >= 400 and text.endswith("data: [DONE]\n"), text[-200:])
                    expect(goodbye, "no GOAWAY")
                expect([process.wait(30) for process in old] == [0, 0], "an old one did not end well")
            finally:
                over.set()
                for asker in askers:
                    asker.join()
            bad = [one for one in statuses if one != ("200", 0)]
            expect(not bad, f"{len(bad)} of {len(statuses)}: {bad[:5]}")
            check.figure = f"{len(statuses)} requests on connections of their own, none failed"


def _serial(gateway):
    shown = openssl("s_client", "-connect", f"127.0.0.1:{gateway.port}", "-servername", "localhost", words="")
    return openssl("x509", "-noout", "-serial", words=shown).strip()


def certificates(report, engine):
    """OpenSSL sees a new certificate while a connection of before goes on."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway, tempfile.TemporaryDirectory() as place:
        _route(gateway, engine)
        gateway.start()
        token = gateway.token("--workspace", "w1")
        with report.check("a certificate that is replaced is served, at SIGHUP at once; a broken one changes nothing") as check:
            before = _serial(gateway)
            with Stream(gateway, token, 100) as stream:
                files, certs = Path(place), gateway.directory / "certs"
                new = certificate(files, "fresh", authority(files, "hosts"), "localhost")
                (certs / "server.key").write_bytes(new[1].read_bytes())
                (certs / "server.pem").write_bytes(new[0].read_bytes())
                gateway.process.send_signal(signal.SIGHUP)
                wait_for("the new serial", lambda: _serial(gateway) != before, 10)
                after = _serial(gateway)
                expect(after == openssl("x509", "-noout", "-serial", "-in", new[0]).strip(), after)
                (certs / "server.pem").write_text("nonsense", encoding="utf-8")
                gateway.process.send_signal(signal.SIGHUP)
                wait_for("it is told", lambda: gateway.metrics().sum("tidegate_certificate_errors") > 0, 10)
                expect(_serial(gateway) == after, "the broken one changed something")
                expect(stream.whole()[0].endswith("data: [DONE]\n"), "the stream of before")
            check.figure = f"{before} to {after}"


def _connects(gateway):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) == 0


def shutdown(report, engine):
    """SIGTERM in steps, and what an HTTP/2 client sees of them."""
    with report.check("SIGTERM: unready but serving, then closed, GOAWAY, and the stream of before comes whole") as check:
        with Tidegate('[gpus]\nsource = "none"\n', gateway_settings='unready_time = "1s"\n') as gateway:
            _route(gateway, engine)
            gateway.start()
            token = gateway.token("--workspace", "w1")
            with Stream(gateway, token, 400) as stream:  # four seconds
                gateway.process.terminate()
                wait_for("unready", lambda: gateway.get("/readyz")[0] == 503, 5, pause=0.01)
                expect(curl(gateway.url, token, "lab", "--cacert", gateway.ca)[0] == "200", "unready, but it served")
                wait_for("closed", lambda: not _connects(gateway), 5)
                text, goodbye = stream.whole()
                expect(goodbye, "no GOAWAY")
                expect(text.count('"content"') >= 400 and text.endswith("data: [DONE]\n"), text[-200:])
            expect(gateway.process.wait(10) == 0, "exit code")
            check.figure = "GOAWAY NO_ERROR"
    with report.check("SIGTERM: what is left after shutdown_timeout gets an error event and [DONE]") as check:
        with Tidegate('[gpus]\nsource = "none"\n', gateway_settings='shutdown_timeout = "1s"\n') as gateway:
            _route(gateway, engine)
            gateway.start()
            token = gateway.token("--workspace", "w1")
            with Stream(gateway, token, 2000) as stream:
                began = time.monotonic()
                gateway.process.terminate()
                text, _ = stream.whole()
                seconds = time.monotonic() - began
                told = re.findall(r'data: (\{"error".*\})', text)
                expect(told and text.endswith("data: [DONE]\n"), text[-300:])
            expect(gateway.process.wait(10) == 0 and 0.9 < seconds < 5, f"after {seconds:.1f} s")
            check.figure = f"after {seconds:.1f} s: {told[0][:120]}"


def run(report, engine):
    """All of it."""
    activation(report, engine)
    restart(report, engine)
    certificates(report, engine)
    shutdown(report, engine)
