"""400 raw requests, each to Tidegate, nginx and HAProxy before equal servers.

What reaches the server behind Tidegate is a whole request each time, as many as Tidegate
answered with 200, with the body that was meant; what both others refuse, Tidegate refuses;
what both pass on, it passes on, but for what it is stricter about on purpose.
"""

import concurrent.futures
import json
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from checks.report import expect, wait_for
from checks.tidegate import Tidegate, free_port
from peers.backend import Backend

CASES = 400
#: Behind the last byte: how long a connection may say nothing before it is taken for done.
SILENCE = 0.6
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")

#: Where Tidegate refuses what nginx and HAProxy both pass on, and why.
STRICTER = {
    "version": "HTTP/1.0 and unknown versions have no streams: nothing that is served needs them",
    "target": "one spelling of a path: what two readers could take for two paths is no path",
    "host": "exactly one Host, and a valid one",
    "encoding": "a body of another coding than gzip, deflate or zstd can't be routed",
    "expect": "an expectation that is not 100-continue can't be met",
    "length": "a Content-Length is digits, once",
    "chunk": "chunks as RFC 9112 has them, without what readers differ about",
    "method": "what is not served is not passed on",
    "field": "no header that two readers could take for two",
    "authorization": "one credential, in one place",
    "body": "one JSON object",
    "upgrade": "a WebSocket where one is served, and nothing else",
}


def body(case, more=b""):
    """A chat request that says which case it is."""
    return b'{"model":"lab","messages":[],"user":"case-%d"%b}' % (case, more)


def head(token, *fields, line=b"POST /v1/chat/completions HTTP/1.1", host=b"Host: lab.test"):
    """A head of these fields."""
    lines = [line, host, b"Authorization: Bearer " + token, b"Content-Type: application/json", *fields]
    return b"\r\n".join(one for one in lines if one) + b"\r\n\r\n"


def sized(token, case, *fields, **others):
    """A request with a Content-Length."""
    text = body(case)
    return head(token, b"Content-Length: %d" % len(text), *fields, **others) + text


def chunked(token, case, *fields, size=b"%x", end=b"0\r\n\r\n", **others):
    """A request in one chunk."""
    text = body(case)
    return head(token, b"Transfer-Encoding: chunked", *fields, **others) + size % len(text) + b"\r\n" + text + b"\r\n" + end


def smuggled(token, case):
    """A second request that hides behind a first one."""
    return sized(token, case, line=b"POST /v1/chat/completions HTTP/1.1")


def written(token):
    """The cases that a person wrote: (kind, case -> bytes)."""
    cases = [("plain", lambda n: sized(token, n)), ("plain", lambda n: chunked(token, n)),
             ("plain", lambda n: sized(token, n) + sized(token, n))]

    def add(kind, make):
        cases.append((kind, make))

    for line in [b"POST /v1/chat/completions HTTP/1.0", b"POST /v1/chat/completions HTTP/1.2", b"POST /v1/chat/completions HTTP/2.0",
                 b"POST /v1/chat/completions http/1.1", b"POST /v1/chat/completions", b"POST /v1/chat/completions HTTP/1.1 x",
                 b"POST  /v1/chat/completions HTTP/1.1", b" POST /v1/chat/completions HTTP/1.1", b"POST\t/v1/chat/completions\tHTTP/1.1",
                 b"POST /v1/chat/completions HTTP/01.1", b"POST /v1/chat/completions HTTP/1.1\0"]:
        add("version", lambda n, line=line: sized(token, n, line=line))
    for path in [b"/v1/chat/completions/", b"//v1/chat/completions", b"/v1//chat/completions", b"/v1/./chat/completions",
                 b"/v1/x/../chat/completions", b"/v1%2fchat/completions", b"/v1/chat%2fcompletions", b"/%76%31/chat/completions",
                 b"/v1/chat/completions%00", b"/v1/chat/completions%0d%0aX:1", b"/v1/chat/completions#x", b"/v1/chat/completions?a=1#x",
                 b"/v1\\chat\\completions", b"/v1/chat/completions;x=1", b"http://lab.test/v1/chat/completions", b"http://other.test/v1/chat/completions",
                 b"https://lab.test/v1/chat/completions", b"*", b"lab.test:80", b"/V1/chat/completions", b"/v1/chat/completions\x80", b"/v1/chat/completions\xc3\xa9",
                 b"/v1/chat/completions?\x01", b"/v1/chat/completions%", b"/v1/chat/completions%zz", b"/.git/config", b"/metrics", b"/sleep", b"/v1/load_lora_adapter"]:
        add("target", lambda n, path=path: sized(token, n, line=b"POST " + path + b" HTTP/1.1"))
    for method in [b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"OPTIONS", b"post", b"POST\xe9", b"P\0ST", b"PO ST", b"X" * 64, b"PRI", b"HEAD"]:
        add("method", lambda n, method=method: sized(token, n, line=method + b" /v1/chat/completions HTTP/1.1"))
    for host in [b"", b"Host:", b"Host: a b", b"Host: a\r\nHost: a", b"Host: a\r\nHost: b", b"Host: lab.test:x", b"Host: lab.test:99999", b"Host: lab.test:",
                 b"Host: u@lab.test", b"Host: lab.test/x", b"Host: lab.test, b", b"Host: [::1", b"Host: [::1]:80", b"Host : lab.test", b"Host\t: lab.test", b"Host: \xff"]:
        add("host", lambda n, host=host: sized(token, n, host=host))
    for length in [b"+%d", b"-%d", b" %d ", b"%d, %d", b"%d,%d", b"0x%x", b"%d.0", b"%de0", b"0%d", b"%d\t", b"%d x", b"\"%d\"", b"%d;a"]:
        def of_length(n, length=length):
            text = body(n)
            numbers = (len(text),) * length.count(b"%")
            return head(token, b"Content-Length: " + length % numbers) + text
        add("length", of_length)
    for extra in [b"Content-Length: 0", b"Content-Length: 5", b"content-length: 99999999999999999999", b"Content-Length:", b"Content_Length: 0",
                  b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
                  b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \"chunked\"",
                  b"Transfer-Encoding:\r\n chunked", b"X: y\r\n Transfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x"]:
        add("length", lambda n, extra=extra: sized(token, n, extra))
        add("length", lambda n, extra=extra: sized(token, n, extra) + smuggled(token, n))
    for size in [b"0%x", b"%X", b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%x\t", b"%x;a=b", b"%x;a=\"b\"", b"%x;\0", b"%x;a\nb", b"%x\n", b"%xg", b"00000000000000000%x",
                 b"%x;" + b"a" * 20_000]:
        add("chunk", lambda n, size=size: chunked(token, n, size=size))
        add("chunk", lambda n, size=size: chunked(token, n, size=size) + smuggled(token, n))
    for end in [b"0\r\n", b"0\n\n", b"00\r\n\r\n", b"0;a\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nX y\r\n\r\n", b"-0\r\n\r\n", b"0 \r\n\r\n", b"\r\n\r\n",
                b"fffffffffffffffff\r\n", b"0\r\n\r\nX"]:
        add("chunk", lambda n, end=end: chunked(token, n, end=end))
        add("chunk", lambda n, end=end: chunked(token, n, end=end) + smuggled(token, n))
    for field in [b"X : y", b"X\0: y", b"X: a\0b", b"X: a\rb", b"X: a\nY: b", b": y", b"X", b"X Y: z", b"X:\r\n folded", b"\xc3\xa9: y", b"X: \xc3\xa9", b"X: \x7f", b"X: \x01", b"(X): y",
                  b"X-" + b"a" * 300 + b": y", b"Cookie: a=b\r\nCookie: c=d", b"Connection: close, X-Secret\r\nX-Secret: 1", b"Connection: authorization", b"TE: trailers", b"Trailer: X", b"Keep-Alive: 5",
                  b"Proxy-Authorization: Basic eA==", b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=1.2.3.4", b"X-Original-URL: /sleep", b"X-HTTP-Method-Override: DELETE", b"Range: bytes=0-1", b"Max-Forwards: 0", b"Via: 1.1 x"]:
        add("field", lambda n, field=field: sized(token, n, field))
    for wanted in [b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: 100-continue, x"]:
        add("expect", lambda n, wanted=wanted: sized(token, n, wanted))
    for coding in [b"gzip", b"br", b"identity", b"gzip, gzip", b"x"]:
        add("encoding", lambda n, coding=coding: sized(token, n, b"Content-Encoding: " + coding))
    for other in [b"Authorization: Bearer x", b"Authorization: Basic eDp5", b"Authorization:", b"authorization : Bearer x", b"x-api-key: x", b"Api-Key: y"]:
        add("authorization", lambda n, other=other: sized(token, n, other))
    for upgrade in [b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__", b"Upgrade: websocket\r\nConnection: Upgrade", b"Connection: Upgrade", b"Upgrade: TLS/1.0\r\nConnection: upgrade"]:
        add("upgrade", lambda n, upgrade=upgrade: sized(token, n, upgrade))
        add("upgrade", lambda n, upgrade=upgrade: sized(token, n, upgrade) + smuggled(token, n))
    for text in [b"", b"[]", b"{", b"{}{}", b"\xef\xbb\xbf{}", b'{"model":"lab","model":"x"}', b'{"model":"lab","x":"\xff"}', b"null"]:
        add("body", lambda n, text=text: head(token, b"Content-Length: %d" % len(text), b"X-Case: case-%d" % n) + text)
    # nginx and HAProxy don't know what a token is: these say only that Tidegate's server gets whole requests.
    for ending in [b"\n", b"\r", b"\n\r"]:
        add("field", lambda n, ending=ending: sized(token, n).replace(b"\r\n", ending))
        add("field", lambda n, ending=ending: sized(token, n).replace(b"\r\n", ending, 1))
    return cases


#: What random damage puts into a head.
WORDS = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\x0b", b"\xa0", b"%", b"/", b"..", b"#", b"@", b"Host: b\r\n"]


def damaged(token, seed):
    """A request with a head that was damaged at random, behind it sometimes a second one."""
    def make(case):
        draw = random.Random(seed)
        raw = sized(token, case) if draw.random() < 0.5 else chunked(token, case)
        # Within the token it would only be a wrong token.
        start, end = raw.index(token), raw.index(token) + len(token)
        whole = raw.index(b"\r\n\r\n") + 4
        for _ in range(draw.randint(1, 3)):
            at = draw.choice([draw.randrange(0, start), draw.randrange(end, whole)])
            raw = raw[:at] + draw.choice(WORDS) + raw[at + draw.randint(0, 1):]
        return raw + (smuggled(token, case) if draw.random() < 0.3 else b"")
    return make


class Others:
    """nginx and HAProxy, each before a server of its own."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="peers-"))
        self.backends = {name: Backend() for name in ("nginx", "haproxy")}
        self.ports = {name: free_port() for name in self.backends}
        nginx, haproxy = self.directory / "nginx.conf", self.directory / "haproxy.cfg"
        nginx.write_text(
            f"daemon off; master_process off; pid {self.directory}/nginx.pid; error_log stderr crit;\n"
            "events { worker_connections 256; }\nhttp { access_log off; client_body_temp_path " f"{self.directory}/b; proxy_temp_path {self.directory}/p;"
            f" fastcgi_temp_path {self.directory}/f; uwsgi_temp_path {self.directory}/u; scgi_temp_path {self.directory}/s;\n"
            f"server {{ listen 127.0.0.1:{self.ports['nginx']}; location / {{ proxy_http_version 1.1; proxy_set_header Connection \"\";"
            f" proxy_pass http://127.0.0.1:{self.backends['nginx'].port}; }} }} }}\n", encoding="utf-8")
        haproxy.write_text(
            "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
            f"frontend f\n bind 127.0.0.1:{self.ports['haproxy']}\n default_backend b\n"
            f"backend b\n server s 127.0.0.1:{self.backends['haproxy'].port}\n", encoding="utf-8")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes = [subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(nginx), "-p", str(self.directory)], **quiet),
                          subprocess.Popen([shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(haproxy)], **quiet)]
        for name, port in self.ports.items():
            wait_for(name, lambda port=port: _listens(port), 15)

    def end(self):
        """Ends both."""
        for process in self.processes:
            process.terminate()
            process.wait(10)
        for backend in self.backends.values():
            backend.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _send(port, raw, silence=SILENCE):
    """All that comes back for these bytes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.settimeout(silence)
        try:
            connection.sendall(raw)
            while True:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
        except OSError:
            pass
    return answer


def _is_object(text):
    try:
        return isinstance(json.loads(text.decode()), dict)
    except ValueError:
        return False


def _statuses(answer):
    return [int(code) for code in STATUS.findall(answer) if code != b"100"]


def run(report):
    """Sends every case to all three."""
    backend, others = Backend(), Others()
    try:
        plain = free_port()
        with Tidegate('[gpus]\nsource = "none"\n', gateway_settings=f'plain_listen = ["127.0.0.1:{plain}"]\n') as gateway:
            gateway.route("lab", f'[route]\nname = "lab"\npublic = true\n[[upstream]]\nurl = "http://127.0.0.1:{backend.port}"\n')
            gateway.start()
            token = gateway.token("--workspace", "w1").encode()
            cases = written(token)
            cases += [("damaged", damaged(token, seed)) for seed in range(CASES - len(cases))]
            with report.check(f"{len(cases)} raw requests to Tidegate, nginx and HAProxy") as check:
                check.figure = _compare(cases, {"tidegate": (plain, backend)} | {
                    name: (others.ports[name], others.backends[name]) for name in others.ports})
            with report.check("after them it serves as before") as check:
                expect(_statuses(_send(plain, sized(token, len(cases) + 1))) == [200], "a plain request")
    finally:
        others.end()
        backend.close()


def _compare(cases, peers):
    began = time.monotonic()

    def tried(number):
        kind, make = cases[number]
        raw = make(number)
        answers = {name: _statuses(_send(port, raw)) for name, (port, _) in peers.items()}
        return number, kind, raw, answers

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        results = list(pool.map(tried, range(len(cases))))
    wrong, agreed, stricter = [], 0, 0
    for number, kind, raw, answers in results:
        seen = {name: backend.of(number) for name, (_, backend) in peers.items()}
        passed = {name: bool(there) for name, there in seen.items()}
        ours, statuses = seen["tidegate"], answers["tidegate"]
        said = f"case {number} ({kind}) {raw[:120]!r}… answered {answers}, servers saw { {name: len(there) for name, there in seen.items()} }"
        if any(one is None for one in ours):
            wrong.append(f"what reached our server was no request: {said}")
        elif len(ours) != statuses.count(200):
            wrong.append(f"the server saw {len(ours)} requests, and the client {statuses.count(200)} answers: {said}")
        elif not all(_is_object(one) for one in ours):
            wrong.append(f"what reached our server was no JSON object in UTF-8: {said}")
        elif passed["tidegate"] and not passed["nginx"] and not passed["haproxy"]:
            wrong.append(f"both others refuse it: {said}")
        elif not passed["tidegate"] and not statuses and kind != "damaged" and b"0\r\n\r\n" in raw[-64:] and passed["nginx"]:
            wrong.append(f"no answer at all: {said}")
        elif not passed["tidegate"] and passed["nginx"] and passed["haproxy"]:
            stricter += 1
            if kind not in STRICTER and kind != "damaged":
                wrong.append(f"both others pass it on: {said}")
        else:
            agreed += 1
    expect(not wrong, "\n".join(wrong[:12]) + f"\n{len(wrong)} in all")
    reached = {name: sum(bool(backend.of(number)) for number in range(len(cases))) for name, (_, backend) in peers.items()}
    return f"{agreed} as one of them does, {stricter} stricter than both; passed on: {json.dumps(reached)}; {time.monotonic() - began:.0f} s"
