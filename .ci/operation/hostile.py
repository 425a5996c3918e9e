"""Peers that mean harm, on HTTP/2 frame by frame; and more connections than there are descriptors."""

import resource
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path

import h2.events

from checks.report import expect, wait_for
from checks.tidegate import Tidegate
from operation.frames import Peer
from operation.pki import curl

#: Frames of one flood. A peer that is let go on sends all of them.
FRAMES = 20_000


def _frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _rapid_reset(peer):
    for _ in range(FRAMES):
        number = peer.h2.get_next_available_stream_id()
        peer.h2.send_headers(number, peer.head("POST", "/v1/chat/completions"))
        peer.h2.reset_stream(number)
        yield peer.h2.data_to_send()


def _continuation(peer):
    number = peer.h2.get_next_available_stream_id()
    block = peer.h2.encoder.encode(peer.head("POST", "/v1/chat/completions"))
    yield _frame(1, 0, number, block)  # HEADERS without END_HEADERS
    for count in range(FRAMES):
        # Literal without indexing: a new name and value each.
        yield _frame(9, 0, number, b"\x00\x06x-%04d\x7f\x41%b" % (count % 10_000, b"y" * 192))


def _pings(_):
    for _ in range(FRAMES):
        yield _frame(6, 0, 0, bytes(8))


def _settings(_):
    for _ in range(FRAMES):
        yield _frame(4, 0, 0)


def _empty_data(peer):
    number = peer.h2.get_next_available_stream_id()
    peer.h2.send_headers(number, peer.head("POST", "/v1/chat/completions") + [("content-type", "application/json")])
    yield peer.h2.data_to_send()
    for _ in range(FRAMES):
        yield _frame(0, 0, number)


def _memory(gateway):
    """Its memory, in MiB."""
    pages = int(Path(f"/proc/{gateway.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def _flood(gateway, token, frames):
    """Sends them all, if it is let; how many went out, and how the connection ended."""
    with Peer(gateway, token) as peer:
        peer.socket.settimeout(0.0)
        sent, waiting, refused = 0, b"", None
        deadline = time.monotonic() + 30
        for piece in frames(peer):
            waiting += piece
            sent += 1
            if len(waiting) < 16_384:
                continue
            while waiting and refused is None:
                expect(time.monotonic() < deadline, f"it neither reads nor closes after {sent} frames")
                try:
                    waiting = waiting[peer.socket.send(waiting):]
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    time.sleep(0.001)
                except OSError as error:
                    refused = type(error).__name__
                try:
                    peer.socket.recv(65536)
                except (ssl.SSLWantReadError, OSError):
                    pass
            if refused is not None:
                break
        peer.socket.settimeout(10)
        try:
            while refused is None:
                refused = None if peer.socket.recv(65536) else "closed"
        except TimeoutError:
            pass
        except OSError as error:
            refused = type(error).__name__
        return sent, refused


def floods(report, gateway, token):
    """Each flood ends with the connection, and nobody else hears of it."""
    floods = {"rapid reset": _rapid_reset, "CONTINUATION without end": _continuation, "PING": _pings,
              "SETTINGS": _settings, "empty DATA": _empty_data}
    for name, frames in floods.items():
        with report.check(f"{name}, {FRAMES} frames: the connection is ended, others are served, memory stays") as check:
            before = _memory(gateway)
            sent, refused = _flood(gateway, token, frames)
            expect(refused, f"all of {sent} were taken, and the connection is open")
            expect(curl(gateway.url, token, "lab", "--cacert", gateway.ca)[0] == "200", "another client")
            more = _memory(gateway) - before
            expect(more < 32, f"{more:.0f} MiB more")
            check.figure = f"{refused} after {sent} frames, {more:+.1f} MiB"


def fragments(report, gateway, token):
    """A `#` in a `:path`, which no client sends and no target has.

    Over HTTP/1.1 it is 400. Here the `http` crate cuts the path at it before anyone sees it, so that what stands
    behind it takes no part in routes, logs or what a server gets: it is left at that.
    """
    paths = ("/v1/models", "/v1/models#", "/v1/models#/../../healthz", "/v1/models#?a=b")
    with report.check("\"#\" in a :path over HTTP/2: what stands behind it changes nothing") as check:
        answers = {}
        with Peer(gateway, token) as peer:
            for path in paths:
                number = peer.h2.get_next_available_stream_id()
                peer.h2.send_headers(number, peer.head("GET", path), end_stream=True)
                peer.flush()
                peer.until(lambda: peer.of(h2.events.StreamEnded, number))
                status = dict(peer.of(h2.events.ResponseReceived, number)[0].headers)
                answers[path] = status.get(b":status", status.get(":status")), peer.text(number)
        expect(len(set(answers.values())) == 1 and '"lab"' in answers["/v1/models"][1], f"{answers}")
        check.figure = f"{len(paths)} alike"


def descriptors(report, engine):
    """More connections than the process has descriptors for."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway:
        gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
        gateway.start()
        token = gateway.token("--workspace", "w1")
        with report.check("connections over the file limit: accept pauses, streams go on, then all are served") as check:
            with Peer(gateway, token) as peer:
                streams = [peer.ask("lab", 400) for _ in range(3)]
                peer.until(lambda: all(peer.of(h2.events.DataReceived, one) for one in streams))
                used = len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))
                subprocess.run(["prlimit", "--pid", str(gateway.process.pid), f"--nofile={used + 8}"], check=True, timeout=10)
                held = [socket.create_connection(("127.0.0.1", gateway.port), 5) for _ in range(100)]
                try:
                    began = _ticks(gateway)
                    peer.until(lambda: all(peer.of(h2.events.StreamEnded, one) for one in streams))
                    for one in streams:
                        text = peer.text(one)
                        expect(text.count('"content"') >= 400 and text.endswith("data: [DONE]\n\n"), text[-200:])
                    spent = _ticks(gateway) - began
                finally:
                    for one in held:
                        one.close()
            wait_for("new connections", lambda: curl(gateway.url, token, "lab", "--cacert", gateway.ca)[0] == "200", 15)
            expect(spent < 2.5, f"{spent} s of CPU time in four seconds: it spins")
            check.figure = f"{used + 8} descriptors, 100 more connections, {spent:.1f} s of CPU time meanwhile"


def _ticks(gateway):
    """CPU time that it has used, in seconds."""
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def run(report, engine):
    """All of it."""
    with Tidegate('[gpus]\nsource = "none"\n') as gateway:
        gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
        gateway.start()
        token = gateway.token("--workspace", "w1")
        fragments(report, gateway, token)
        floods(report, gateway, token)
    descriptors(report, engine)
