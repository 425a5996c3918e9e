"""The worst that five valid tokens can send, against `memory_budget`: what the process takes, and gives back.

Each storm comes from five tokens, of three workspaces, at five addresses, so that no share holds it back.
"""

import contextlib
import gzip
import json
import os
import resource
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

import h2.connection
import h2.config
import hpack

from checks.report import expect, wait_for
from checks.tidegate import Tidegate
from traffic.engines import Engine

#: What the gateway may hold, and what it may take beside that: code, pools, TLS, threads, and what the allocator
#: keeps of freed memory until the next look, half a second later, of a busy machine.
BUDGET, BESIDE = 256 << 20, 96 << 20
#: By so much it may be larger after a storm than before.
LEFT = 32 << 20
BODY = 20 << 20
SECONDS = float(os.environ.get("TIDEGATE_CI_STORM", "4"))


def _resident(gateway):
    pages = int(Path(f"/proc/{gateway.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _peak(gateway):
    status = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))


def _forget_peak(gateway):
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5", encoding="ascii")


class Sender:
    """A token at an address of its own, and its open connections."""

    def __init__(self, gateway, number):
        self.gateway, self.address = gateway, f"127.0.0.{number + 2}"
        self.token = gateway.token("--workspace", f"w{number % 3}")
        self.open = []

    def connect(self, protocol):
        """A connection over TLS."""
        trust = ssl.create_default_context(cafile=self.gateway.ca)
        trust.set_alpn_protocols([protocol])
        plain = socket.create_connection(("127.0.0.1", self.gateway.port), 10, source_address=(self.address, 0))
        link = trust.wrap_socket(plain, server_hostname="localhost")
        self.open.append(link)
        return link

    def head(self, more=""):
        """The head of a chat request of HTTP/1.1, without its end."""
        return (f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{self.gateway.port}\r\n"
                f"authorization: Bearer {self.token}\r\ncontent-type: application/json\r\n{more}").encode()

    def close(self):
        """Ends all at once."""
        for link in self.open:
            with contextlib.suppress(OSError):
                link.close()
        self.open.clear()


def _push(link, pieces):
    """Sends what is taken until the other side takes no more for a while, or answers; returns how many bytes."""
    sent = 0
    link.settimeout(0.3)
    with contextlib.suppress(OSError):
        for piece in pieces:
            link.sendall(piece)
            sent += len(piece)
    return sent


def _frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _h2(sender, streams, headers, data, more=(), window=None):
    """Requests on one connection of HTTP/2, each with `data` to send as far as the windows let it; bytes sent."""
    link = sender.connect("h2")
    own = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, validate_outbound_headers=False,
                                                               normalize_outbound_headers=False))
    if window:
        own.local_settings.initial_window_size = window
    own.initiate_connection()
    head = [(":method", "POST"), (":scheme", "https"), (":authority", f"localhost:{sender.gateway.port}"),
            (":path", "/v1/chat/completions"), ("authorization", f"Bearer {sender.token}"),
            ("content-type", "application/json"), *headers]
    link.settimeout(0.3)
    sent, ids, chunk = 0, [], b" " * 16384
    with contextlib.suppress(OSError):
        link.sendall(own.data_to_send())
        with contextlib.suppress(TimeoutError):
            own.receive_data(link.recv(65536))
        for _ in range(streams):
            number = own.get_next_available_stream_id()
            own.send_headers(number, head + list(more), end_stream=not data)
            ids.append(number)
            link.sendall(own.data_to_send())
        left = dict.fromkeys(ids, len(data) if data else 0)
        until = time.monotonic() + SECONDS
        while any(left.values()) and time.monotonic() < until:
            moved = False
            for number in ids:
                with contextlib.suppress(Exception):
                    room = min(own.local_flow_control_window(number), left[number], len(chunk))
                    if room > 0:
                        at = len(data) - left[number]
                        own.send_data(number, data[at:at + room])
                        left[number] -= room
                        sent, moved = sent + room, True
                        link.sendall(own.data_to_send())
            link.settimeout(0.005 if moved else 0.2)
            try:
                came = link.recv(65536)
                if not came:
                    break
                own.receive_data(came)
            except TimeoutError:
                pass
            link.settimeout(5)
            link.sendall(own.data_to_send())
    return sent


def _bodies_h2(sender):
    """100 streams of 20 MiB each on one connection, not one of them ended."""
    text = b'{"model":"lab","x":"' + b"y" * (BODY - 20)
    return _h2(sender, 100, [("content-length", str(BODY + 9))], text)


def _unsaid_h2(sender):
    """The same, without saying how long they are."""
    return _h2(sender, 100, [], b'{"model":"lab","x":"' + b"y" * BODY)


def _bodies_h1(sender):
    """30 connections with bodies of 20 MiB in chunks."""
    piece = b"y" * (64 << 10)
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    sent = 0
    for _ in range(30):
        link = sender.connect("http/1.1")
        begin = sender.head("transfer-encoding: chunked\r\n\r\n") + b'14\r\n{"model":"lab","x":"\r\n'
        sent += _push(link, [begin, *[chunk] * (BODY // len(piece))])
    return sent


def _packed(sender):
    """30 bodies of 64 MiB, packed into 64 KiB: none of them JSON, so that none is answered before it was unpacked."""
    text = gzip.compress(b'{"model":"lab","x":"' + b"y" * (62 << 20), 9)
    sent = 0
    for _ in range(30):
        link = sender.connect("http/1.1")
        head = sender.head(f"content-encoding: gzip\r\ncontent-length: {len(text)}\r\n\r\n")
        sent += _push(link, [head, text])
    return sent


def _heads_h1(sender):
    """200 connections with heads of 60 KiB, none of which ends."""
    lines = b"".join(b"x-%03d: %b\r\n" % (number, b"y" * 1000) for number in range(60))
    return sum(_push(sender.connect("http/1.1"), [sender.head().replace(b"POST", b"GET"), lines]) for _ in range(200))


def _heads_h2(sender):
    """Three connections with 128 heads of 60 KiB each, which are a few bytes each behind the first."""
    many = [(f"x-{number:02}", "y" * 1000) for number in range(50)]
    return sum(_h2(sender, 128, [("content-length", "10"), *many], b"{") for _ in range(3))


def _open_heads_h2(sender):
    """300 connections without a token, each with a head of 7,900 fields, a byte each, that does not end."""
    small = hpack.Encoder().encode([(":method", "GET"), (":scheme", "https"), (":path", "/healthz"),
                                    (":authority", f"localhost:{sender.gateway.port}")], huffman=False)
    field = b"\x40\x01a\x00"  # literal, kept by the decoder under the first free index
    begin = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0) + _frame(1, 5, 1, small + field)
             + _frame(1, 0, 3, b"\xbe" * 7900))
    return sum(_push(sender.connect("h2"), [begin]) for _ in range(300))


def _slow_readers(sender):
    """60 answers of megabytes that nobody reads."""
    sent = 0
    for _ in range(30):
        link = sender.connect("http/1.1")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        text = json.dumps({"model": "lab", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 100_000,
                           "ignore_eos": True, "stream": True}).encode()
        sent += _push(link, [sender.head(f"content-length: {len(text)}\r\n\r\n") + text])
    text = json.dumps({"model": "lab", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 100_000,
                       "ignore_eos": True, "stream": True}).encode()
    return sent + _h2(sender, 30, [("content-length", str(len(text)))], text, window=2**31 - 1)


def _sockets(sender):
    """20 WebSockets, each with a message of 16 MiB that does not end."""
    sent, piece = 0, b"y" * (64 << 10)
    for _ in range(20):
        link = sender.connect("http/1.1")
        head = sender.head().replace(b"POST /v1/chat/completions", b"GET /v1/realtime?model=voice")
        link.sendall(head + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        link.settimeout(3)
        with contextlib.suppress(OSError):
            if b" 101 " not in link.recv(4096)[:20]:
                continue
        sent += _push(link, [b"\x01\xff" + struct.pack(">Q", 16 << 20) + bytes(4), *[piece] * 255])
    return sent


STORMS = {
    "100 streams of 20 MiB on each connection": _bodies_h2, "the same of unsaid length": _unsaid_h2,
    "bodies of 20 MiB in chunks": _bodies_h1, "bodies that unpack to 62 MiB": _packed,
    "heads without end": _heads_h1, "heads of HTTP/2, packed": _heads_h2,
    "heads of HTTP/2 that do not end": _open_heads_h2,
    "answers that nobody reads": _slow_readers, "messages without end": _sockets,
}


def _refusal(gateway, sender):
    """What a body of 60 MiB is told now, before any of it was sent."""
    with contextlib.suppress(OSError):
        link = sender.connect("http/1.1")
        link.settimeout(12)
        link.sendall(sender.head(f"content-length: {60 << 20}\r\n\r\n"))
        return link.recv(8192).decode()
    return ""


def _storm(gateway, senders, storm):
    """Runs it, and holds it for a moment: bytes sent, and what was seen meanwhile."""
    sent, seen, over = [], {"healthy": 0, "asked": 0, "held": 0, "sockets": "", "unhealthy": ""}, threading.Event()

    def held():
        return gateway.metrics().sum("tidegate_memory_held_bytes")

    def one(sender):
        try:
            sent.append(storm(sender))
        except Exception as error:  # it may be cut off at any moment
            sent.append(0)
            seen["sockets"] = repr(error)

    def watch():
        while not over.wait(0.3):
            seen["asked"] += 1
            try:
                status = gateway.get("/healthz", timeout=5)[0]
                seen["healthy"] += status == 200
                if status != 200:
                    seen["unhealthy"] = status
            except OSError as error:
                seen["unhealthy"] = repr(error)
            with contextlib.suppress(OSError):
                seen["held"] = max(seen["held"], held())

    threads = [threading.Thread(target=one, args=(sender,)) for sender in senders]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    time.sleep(1)
    before = held()
    seen["refusal"] = _refusal(gateway, senders[0])
    # What was held when it asked and what was held when it had its answer, or none.
    seen["asking"] = (before, held())
    over.set()
    watcher.join(30)
    return sum(sent), seen


def _mib(count):
    return f"{count / 2**20:.0f} MiB"


def _cost(report, gateway, senders):
    """What is taken for each byte of bodies that have come and wait for the rest."""
    with report.check("a byte that came costs at most 1.1") as check:
        before, piece = _resident(gateway), b"y" * (64 << 10)
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
        sent = 0
        for sender in senders:
            for _ in range(2):
                begin = sender.head("transfer-encoding: chunked\r\n\r\n") + b'14\r\n{"model":"lab","x":"\r\n'
                sent += _push(sender.connect("http/1.1"), [begin, *[chunk] * (BODY // len(piece))])
        time.sleep(1)
        cost = (_resident(gateway) - before) / sent
        for sender in senders:
            sender.close()
        check.figure = f"{_mib(sent)} in ten bodies, {cost:.3f} for each byte"
        expect(sent > 9 * BODY, f"only {sent} bytes were taken")
        expect(cost <= 1.1, "it costs more")
        wait_for("they are let go", lambda: gateway.metrics().sum("tidegate_memory_held_bytes") < BUDGET / 16, 30)


def run(report, _):
    """Every storm, one after the other."""
    with contextlib.ExitStack() as stack:
        engines = [Engine({**os.environ}, *more) for more in (("--tokens-per-second", "1e9"), ("--kind", "transcribe"))]
        for engine in engines:
            stack.callback(engine.kill)
        _run(report, *engines)


def _run(report, engine, voice):
    settings = '[gpus]\nsource = "none"\n'
    with Tidegate(settings, gateway_settings=f'memory_budget = "{BUDGET >> 20}MiB"\n') as gateway:
        gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n{engine.upstream()}')
        gateway.route("voice", f'[route]\nname = "voice"\npublic = true\n{voice.upstream()}')
        gateway.start()
        senders = [Sender(gateway, number) for number in range(5)]
        _cost(report, gateway, senders)
        full = 0
        for name, storm in STORMS.items():
            with report.check(f"{name}, by five tokens: within the budget, and given back") as check:
                _forget_peak(gateway)
                before = _resident(gateway)
                sent, seen = _storm(gateway, senders, storm)
                peak = _peak(gateway)
                for sender in senders:
                    sender.close()
                began = time.monotonic()
                back = 0

                def is_back():
                    nonlocal back
                    back = _resident(gateway) - before
                    # What the next storm finds held must not be this one's.
                    return back <= LEFT and gateway.metrics().sum("tidegate_memory_held_bytes") < BUDGET / 16

                returned = False
                with contextlib.suppress(AssertionError):
                    wait_for("memory is given back", is_back, 60, pause=0.5)
                    returned = True
                check.figure = (f"{_mib(sent)} sent, {_mib(seen['held'])} held of {_mib(BUDGET)}, {_mib(before)} before, "
                                f"{_mib(peak - before)} more at most, {back / 2**20:+.0f} MiB after {time.monotonic() - began:.0f} s, "
                                f"alive {seen['healthy']} of {seen['asked']}; {' to '.join(map(_mib, seen['asking']))} held when another "
                                f"asked: {seen['refusal'][:12]!r} {seen['sockets']}")
                expect(gateway.process.poll() is None, "it ended")
                expect(peak - before <= BUDGET + BESIDE, "it took more than its budget")
                expect(returned, f"it was not given back: {gateway.metrics().sum('tidegate_memory_held_bytes')} bytes held")
                expect(seen["healthy"] == seen["asked"], f"/healthz was not answered: {seen['unhealthy']}")
                if min(seen["asking"]) > BUDGET * 0.8:
                    full += 1
                    expect(" 503 " in seen["refusal"][:20] and "retry-after" in seen["refusal"].lower()
                           and "overloaded" in seen["refusal"], f"another request: {seen['refusal'][:300]}")
        with report.check("other requests met a full budget, and were told so") as check:
            check.figure = f"in {full} storms of {len(STORMS)}"
            expect(full, "no storm filled it")
