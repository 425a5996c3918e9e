"""A server that takes nothing on trust: it writes down every request that reaches it, byte for byte."""

import re
import socket
import threading

CASE = re.compile(rb"case-(\d+)")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]")
FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\0]*")


class Backend:
    """Listens on a loopback port. `seen` has what each case brought: bodies, or None for what is no request."""

    def __init__(self):
        self.seen = {}
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Takes no more connections."""
        self._socket.close()

    def of(self, case):
        """What a case brought so far."""
        with self._lock:
            return list(self.seen.get(case, []))

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _note(self, raw, body):
        found = CASE.search(raw)
        with self._lock:
            self.seen.setdefault(int(found.group(1)) if found else None, []).append(body)

    def _serve(self, connection):
        connection.settimeout(30)
        held = b""
        try:
            while True:
                while b"\r\n\r\n" not in held:
                    more = connection.recv(65536)
                    if not more:
                        if held:
                            self._note(held, None)
                        return
                    held += more
                head, held = held.split(b"\r\n\r\n", 1)
                body, held = self._body(connection, head, held)
                self._note(head + (body or b""), body)
                if body is None:
                    return
                connection.sendall(ANSWER)
        except OSError:
            if held:
                self._note(held, None)
        finally:
            connection.close()

    def _body(self, connection, head, held):
        """The body behind a head, and what stands behind it; None where the request is none."""
        line, *fields = head.split(b"\r\n")
        if not LINE.fullmatch(line) or not all(FIELD.fullmatch(field) for field in fields):
            return None, held
        named = [tuple(part.strip() for part in field.lower().split(b":", 1)) for field in fields]
        lengths = [value for name, value in named if name == b"content-length"]
        encodings = [value for name, value in named if name == b"transfer-encoding"]
        if len(lengths) + len(encodings) > 1 or encodings not in ([], [b"chunked"]):
            return None, held
        if encodings:
            return self._chunks(connection, held)
        if lengths and not lengths[0].isdigit():
            return None, held
        return self._exactly(connection, held, int(lengths[0]) if lengths else 0)

    def _exactly(self, connection, held, length):
        while len(held) < length:
            more = connection.recv(65536)
            if not more:
                return None, held
            held += more
        return held[:length], held[length:]

    def _chunks(self, connection, held):
        body = b""
        while True:
            while b"\r\n" not in held:
                more = connection.recv(65536)
                if not more:
                    return None, held
                held += more
            size, held = held.split(b"\r\n", 1)
            if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
                return None, held
            chunk, held = self._exactly(connection, held, int(size, 16) + 2)
            if chunk is None or not chunk.endswith(b"\r\n"):
                return None, held
            if int(size, 16) == 0:
                return body, held
            body += chunk[:-2]
