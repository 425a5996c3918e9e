"""WebSocket frames, good and bad, through Tidegate: judged by two libraries that no one here wrote.

A fuzzing client cuts messages into frames, puts control frames between them and breaks the
rules of RFC 6455 at random. `websockets` is the server behind Tidegate; `websockets` and
`wsproto` both read the same bytes without it. What both take for good comes through whole and
in order; after what both refuse nothing more comes through, and the client is told with a
close frame.
"""

import concurrent.futures
import random
import secrets
import socket
import struct
import threading
import time

import wsproto.connection
import wsproto.events
from websockets.exceptions import ConnectionClosed
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.sync.server import serve

from checks.report import expect
from checks.tidegate import Tidegate, free_port

SESSIONS = 400
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
#: Close codes by which a side says that it was not understood, or that it was too much.
BROKEN = {1002, 1007, 1009}
#: Instead of a code: the connection was reset while the client still sent, which may cost it the last words.
RESET = "reset"


def frame(draw, opcode, payload, fin=True, *, mask=True, reserved=0, wide=None):
    """One frame; `wide` writes its length in more bytes than it takes."""
    head = bytes([fin << 7 | reserved << 4 | opcode])
    length, bit = len(payload), mask << 7
    if wide == 8 or length > 0xFFFF:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    elif wide == 2 or length > 125:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | length])
    if not mask:
        return head + payload
    key = draw.randbytes(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def message(draw):
    """A whole message, in one frame or many, with pings between them."""
    size = draw.choice([0, 1, 20, 125, 126, 300, 5_000, 70_000])
    text = b'{"type":"x","a":"' + b"y" * size + "\u00e9".encode() + b'"}'
    cuts = sorted(draw.randrange(len(text) + 1) for _ in range(draw.choice([0, 0, 1, 3])))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    raw = b""
    for at, part in enumerate(parts):
        raw += frame(draw, 0 if at else 1, part, at == len(parts) - 1)
        if draw.random() < 0.2:
            raw += frame(draw, draw.choice([9, 10]), draw.randbytes(draw.randrange(126)))
    return raw


def breach(draw):
    """What RFC 6455 forbids."""
    return draw.choice([
        lambda: frame(draw, 1, b"{}", mask=False),
        lambda: frame(draw, 1, b"{}", reserved=draw.choice([1, 2, 4])),
        lambda: frame(draw, draw.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), b"{}"),
        lambda: frame(draw, 9, b"x" * 126),
        lambda: frame(draw, 9, b"x", fin=False),
        lambda: frame(draw, 0, b"{}"),
        lambda: frame(draw, 1, b"{", fin=False) + frame(draw, 1, b"}"),
        lambda: frame(draw, 8, b"\x03"),
        lambda: frame(draw, 8, struct.pack(">H", draw.choice([0, 999, 1004, 1005, 1006, 1015, 2999, 5000])) + b"x"),
        lambda: frame(draw, 8, b"\x03\xe8\xff"),
        lambda: frame(draw, 1, b'{"a":"\xff"}'),
        lambda: frame(draw, 1, b'{"a":"\xc3', fin=False) + frame(draw, 0, b'"}'),
        lambda: bytes([0x81, 0xFF]) + struct.pack(">Q", 1 << 63) + b"aaaa",
    ])()


def by_websockets(raw):
    """The messages that `websockets` reads, and whether it refuses what follows."""
    server = ServerProtocol(state=OPEN, max_size=1 << 24)
    server.receive_data(raw)
    found, parts = [], []
    for event in server.events_received():
        if event.opcode in (0, 1, 2):
            parts.append(bytes(event.data))
            if event.fin:
                found.append(b"".join(parts))
                parts = []
    return found, server.parser_exc is not None


def by_wsproto(raw):
    """The messages that `wsproto` reads, and whether it refuses what follows."""
    server = wsproto.connection.Connection(wsproto.connection.ConnectionType.SERVER)
    found, parts = [], []
    try:
        server.receive_data(raw)
        for event in server.events():
            if isinstance(event, wsproto.events.Message):
                data = event.data if isinstance(event.data, (bytes, bytearray)) else event.data.encode()
                parts.append(bytes(data))
                if event.message_finished:
                    found.append(b"".join(parts))
                    parts = []
            elif isinstance(event, wsproto.events.CloseConnection):
                return found, event.code in BROKEN
    except wsproto.utilities.RemoteProtocolError:
        return found, True
    return found, False


class Server:
    """`websockets` as people run it. `seen` has the messages of each session."""

    def __init__(self):
        self.seen, self._lock = {}, threading.Lock()
        self._server = serve(self._handle, "127.0.0.1", 0, max_size=1 << 24, compression=None)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _handle(self, connection):
        try:
            messages = self.seen.setdefault(connection.recv(), [])
            while True:
                text = connection.recv()
                with self._lock:
                    messages.append(text.encode() if isinstance(text, str) else bytes(text))
        except ConnectionClosed:
            pass

    def close(self):
        """Takes no more connections."""
        self._server.shutdown()


def session(port, token, draw):
    """One client; its name, what it sent after its name, and the close code that it was told."""
    name = '{"type":"hello","id":"%s"}' % secrets.token_hex(8)
    raw = b"".join(message(draw) for _ in range(draw.randrange(4)))
    if draw.random() < 0.6:
        raw += breach(draw) + message(draw)
    raw += frame(draw, 8, b"\x03\xe8")
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(
            b"GET /v1/realtime?model=lab HTTP/1.1\r\nHost: lab.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += peer.recv(65536) or b"\r\n\r\n(closed)"
        expect(answer.startswith(b"HTTP/1.1 101 "), answer[:300])
        answer = answer.split(b"\r\n\r\n", 1)[1]
        rest = frame(draw, 1, name.encode()) + raw
        try:
            while rest:
                cut = draw.choice([1, 2, 7, 100, 10_000, len(rest)])
                peer.sendall(rest[:cut])
                rest = rest[cut:]
            while True:
                more = peer.recv(65536)
                if not more:
                    break
                answer += more
        except ConnectionError:
            return name, raw, _closing(answer) or RESET
    return name, raw, _closing(answer)


def _closing(answer):
    """The code of the close frame in what a server sent; None where there is none."""
    while len(answer) >= 2:
        opcode, length, at = answer[0] & 15, answer[1] & 127, 2
        if length == 126:
            length, at = struct.unpack(">H", answer[2:4])[0], 4
        if opcode == 8:
            return struct.unpack(">H", answer[at:at + 2])[0] if length >= 2 else 1005
        answer = answer[at + length:]
    return None


def run(report):
    """Runs the sessions, and compares."""
    server, plain = Server(), free_port()
    try:
        with Tidegate('[gpus]\nsource = "none"\n', gateway_settings=f'plain_listen = ["127.0.0.1:{plain}"]\n') as gateway:
            gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n[[upstream]]\nurl = "http://127.0.0.1:{server.port}"\n')
            gateway.start()
            token = gateway.token("--workspace", "w1")
            with report.check(f"{SESSIONS} WebSocket sessions, judged by websockets and wsproto") as check:
                began = time.monotonic()
                with concurrent.futures.ThreadPoolExecutor(8) as pool:
                    done = list(pool.map(lambda seed: session(plain, token, random.Random(seed)), range(SESSIONS)))
                refused = sum(_judge(seed, server, *one) for seed, one in enumerate(done))
                reset = sum(code == RESET for _, _, code in done)
                expect(reset <= refused // 2, f"{reset} of {refused} were reset before they were told why")
                check.figure = f"{SESSIONS - refused} taken whole, {refused} refused by all ({reset} reset), {time.monotonic() - began:.0f} s"
    finally:
        server.close()


def _judge(seed, server, name, raw, code):
    """Holds one session against both libraries; whether it was refused."""
    (one, one_refuses), (other, other_refuses) = by_websockets(raw), by_wsproto(raw)
    came = server.seen.get(name, [])
    said = f"session {seed}: {len(came)} messages came through, closed with {code}; websockets: {len(one)}, {one_refuses}; wsproto: {len(other)}, {other_refuses}"
    common = one if len(one) <= len(other) else other
    expect(came == (one if len(one) >= len(other) else other)[: len(came)], f"other messages than were sent, {said}")
    if one_refuses and other_refuses:
        expect(code in BROKEN or code == RESET, f"it is not told what was wrong, {said}")
    elif not one_refuses and not other_refuses:
        expect(code == 1000 and len(came) == len(common), f"something was lost, {said}")
    return one_refuses and other_refuses
