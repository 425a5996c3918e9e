"""A list whose first target flaps: who answers each request, and how often."""

import asyncio
import collections
import json
import os
import re
import ssl

from checks.report import expect
from checks.tidegate import free_port

#: Requests; TIDEGATE_CI_FLAPS asks for others.
REQUESTS = int(os.environ.get("TIDEGATE_CI_FLAPS", "4000"))
#: Connections of clients.
CLIENTS = 16
#: Answers of the first target before it closes its port, and refusals are looked for.
UP = 300
#: Seconds that its port is closed.
DOWN = 0.05
WHOLE = b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}'
PORTS = [free_port(), free_port()]


def routes():
    """Name and text of the route file: nobody is left out, however often it fails."""
    upstreams = "".join(
        f'[[upstream]]\nname = "s{n}"\nurl = "http://127.0.0.1:{port}"\n[[target]]\nto = "s{n}"\n' for n, port in enumerate(PORTS))
    yield "flapping", f"public = true\n[route.ejection]\nfailures = 0\n[route.retries]\nbudget = 0.0\n{upstreams}"


def _answer(status, body, length=None):
    return (f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n").encode() + body


class Server:
    """Answers chats; one that flaps does so in four ways."""

    def __init__(self, port, flaps, answered):
        self.port, self.flaps, self.answered = port, flaps, answered
        self.turns, self.listening, self.open, self.told = 0, None, set(), collections.Counter()

    async def listen(self):
        self.listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)

    async def flap(self):
        """Closes its port again and again, with all that is idle on it."""
        seen = 0
        while True:
            await asyncio.sleep(0.01)
            if self.turns - seen < UP:
                continue
            self.listening.close()
            for writer, busy in list(self.open):
                if not busy.is_set():
                    writer.close()
            self.told["closed"] += 1
            await asyncio.sleep(DOWN)
            await self.listen()
            seen = self.turns

    async def _serve(self, reader, writer):
        busy = asyncio.Event()
        self.open.add((writer, busy))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                busy.set()
                body = await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
                self.turns += 1
                turn = self.turns % 4 if self.flaps else 0
                if turn in (1, 2):
                    status = {1: "502 Bad Gateway", 2: "503 Service Unavailable"}[turn]
                    self.told[status[:3]] += 1
                    writer.write(_answer(status, b"{}"))
                else:
                    self.answered[json.loads(body)["user"]] += 1
                    cut = turn == 3
                    self.told["cut" if cut else "200"] += 1
                    writer.write(_answer("200 OK", WHOLE[:40] if cut else WHOLE, len(WHOLE)))
                    if cut:
                        await writer.drain()
                        return
                await writer.drain()
                busy.clear()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard((writer, busy))
            writer.close()


async def _client(gateway, token, context, numbers, seen):
    reader = writer = None
    for number in numbers:
        if writer is None:
            reader, writer = await asyncio.open_connection("localhost", gateway.port, ssl=context)
        body = json.dumps({"model": "flapping", "messages": [], "user": f"u{number}"}).encode()
        writer.write((f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                      f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            seen["nothing"] += 1
            writer = None
            continue
        status = head.split(b" ", 2)[1].decode()
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        try:
            told = await reader.readexactly(length)
            # Its port closed between the handshake and the first byte: nobody can know that it was not read.
            broke = status == "502" and b"broke off before it answered" in told
            seen["502, sent" if broke else status] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            seen[f"{status}, cut"] += 1
            writer = None
    if writer is not None:
        writer.close()


async def _all(gateway, token):
    answered, seen = collections.Counter(), collections.Counter()
    first, second = Server(PORTS[0], True, answered), Server(PORTS[1], False, answered)
    await first.listen()
    await second.listen()
    context = ssl.create_default_context(cafile=gateway.ca)
    flapping = asyncio.create_task(first.flap())
    try:
        await asyncio.gather(*(_client(gateway, token, context, range(n, REQUESTS, CLIENTS), seen) for n in range(CLIENTS)))
    finally:
        flapping.cancel()
        first.listening.close()
        second.listening.close()
    return answered, seen, first.told


def run(report, gateway):
    """The check."""
    with report.check("while the first target of a list flaps, no request is lost that had not begun, and none is answered twice") as check:
        answered, seen, told = asyncio.run(_all(gateway, gateway.token("--workspace", "acme")))
        why = gateway.metrics()
        retried = {reason: int(why.sum("tidegate_upstream_retries_total", route="flapping", reason=reason))
                   for reason in ("unreachable", "502", "503")}
        check.figure = f"{REQUESTS} asked: {dict(seen)}; went on after {retried}; port closed {told['closed']} times"
        # Of an answer that is cut off at once, the client may see no byte.
        cut = seen["200, cut"] + seen["nothing"]
        expect(set(seen) <= {"200", "200, cut", "nothing", "502, sent"}, "one was lost before it began")
        expect(seen["502, sent"] <= told["closed"] * CLIENTS, "more were sent to a port that closes than could be")
        expect(len(answered) >= REQUESTS - seen["502, sent"], f"{REQUESTS - len(answered)} reached nobody")
        twice = [user for user, times in answered.items() if times > 1]
        expect(not twice, f"{len(twice)} were answered twice, such as {twice[:3]}")
        expect(cut == told["cut"] and all(retried.values()), "not all ways to flap were seen")
