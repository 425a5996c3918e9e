"""A stand-in for the hub: models in memory or files, with ranges, redirects and checksums.

Large files are on a host of their own behind a redirect, as the hub's are. Faults are said
beforehand and used up by the requests that meet them.
"""

import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

#: Files of this size and above are kept as large ones.
LARGE = 1 << 20


class Content:
    """A file of a model: bytes, or where they stand on a disk."""

    def __init__(self, data=None, path=None, large=None, states=None):
        self.data, self.path = data, path
        self.size = len(data) if data is not None else os.path.getsize(path)
        self.is_large = self.size >= LARGE if large is None else large
        #: What the list says of it that is not so.
        self.states = states or {}
        self.sha256 = self._sum(hashlib.sha256())
        self.blob_id = self._sum(hashlib.sha1(b"blob %d\0" % self.size))

    def _sum(self, summed):
        if self.data is not None:
            summed.update(self.data)
            return summed.hexdigest()
        with open(self.path, "rb") as file:
            while piece := file.read(1 << 22):
                summed.update(piece)
        return summed.hexdigest()

    @property
    def etag(self):
        """What the hub calls its content by."""
        return self.sha256 if self.is_large else self.blob_id

    def listed(self, name):
        """As the list of a model has it."""
        entry = {"rfilename": name, "size": self.size, "blobId": self.blob_id}
        if self.is_large:
            entry["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": 134}
        if "size" in self.states:
            entry["size"] = self.states["size"]
            if self.is_large:
                entry["lfs"]["size"] = self.states["size"]
        if "sha256" in self.states and self.is_large:
            entry["lfs"]["sha256"] = self.states["sha256"]
        return entry


class Model:
    """A model with its revisions, each a commit with files."""

    def __init__(self, files, commit=None, revisions=(), gated=False):
        text = json.dumps(sorted((name, content.sha256) for name, content in files.items()))
        self.commit = commit or hashlib.sha1(text.encode()).hexdigest()
        self.files, self.gated = files, gated
        self.revisions = {"main", self.commit, *revisions}


class Server(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Hub:
    """Serves models on two ports, the second that of large files. Use it in a `with` block."""

    def __init__(self):
        self.models = {}
        #: What the next requests meet whose path holds this text: a fault for each.
        self.faults = {}
        #: Bytes of bodies that were sent by path, requests with their headers, and the rate.
        self.sent, self.requests, self.bytes_per_second = {}, [], None
        self.lock = threading.Lock()
        self.servers = [Server((host, 0), self._handler()) for host in ("127.0.0.1", "localhost")]
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.servers[0].server_port}"
        self.store = f"http://localhost:{self.servers[1].server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fault(self, path, *faults):
        """What the next requests whose path holds `path` meet."""
        with self.lock:
            self.faults.setdefault(path, []).extend(faults)

    def take_fault(self, path):
        """The fault that a request meets; `None` for none."""
        with self.lock:
            for text, faults in self.faults.items():
                if text in path and faults:
                    return faults[0] if faults[0].endswith("!") else faults.pop(0)
        return None

    def bytes_sent(self, name=""):
        """Bytes of bodies whose path holds this text."""
        with self.lock:
            return sum(count for path, count in self.sent.items() if name in path)

    def forget(self):
        """Begins the counts and faults anew."""
        with self.lock:
            self.sent.clear()
            self.faults.clear()
            self.requests.clear()

    def large(self, sha256):
        """The large file of a checksum."""
        for model in self.models.values():
            for name, content in model.files.items():
                if content.is_large and content.sha256 == sha256:
                    return name, content
        return None, None

    def _handler(hub):  # pylint: disable=no-self-argument
        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_GET(self):
                """Answers, or fails as was said beforehand."""
                path = unquote(urlsplit(self.path).path)
                with hub.lock:
                    hub.requests.append((self.command, path, dict(self.headers)))
                fault = hub.take_fault(f"{self.command} {path}")
                fault = fault and fault.rstrip("!")
                if fault and fault.isdigit():
                    return self._error(int(fault), headers={"retry-after": "1"})
                if fault == "html":
                    return self._answer(200, b"<html>Please log in to the network.</html>", {"content-type": "text/html"})
                if path.startswith("/api/models/"):
                    return self._api(path.removeprefix("/api/models/"))
                if path.startswith("/large/"):
                    name, content = hub.large(path.removeprefix("/large/"))
                    return self._content(name, content, fault, {}) if content else self._error(404)
                return self._resolve(path, fault)

            do_HEAD = do_GET

            def _model(self, name, revision):
                model = hub.models.get(name)
                if model is None:
                    # The hub does not say which models there are.
                    self._error(401, "RepoNotFound", "Repository not found")
                elif model.gated and self.headers.get("authorization") != "Bearer hf_right":
                    self._error(403 if "authorization" in self.headers else 401, "GatedRepo", "Access is restricted")
                elif revision not in model.revisions:
                    self._error(404, "RevisionNotFound", "Invalid rev id")
                else:
                    return model
                return None

            def _api(self, rest):
                name, _, rest = rest.partition("/revision/") if "/revision/" in rest else rest.partition("/tree/")
                model = self._model(name, rest.split("/")[0] if not rest.startswith("refs/") else rest)
                if model is None:
                    return None
                listed = [content.listed(name) for name, content in model.files.items()]
                if "/tree/" in self.path:
                    listed = [{"type": "file", "path": entry["rfilename"], "oid": entry["blobId"], "size": entry["size"],
                               **({"lfs": {"oid": entry["lfs"]["sha256"], **entry["lfs"]}} if "lfs" in entry else {})}
                              for entry in listed]
                    return self._answer(200, json.dumps(listed).encode())
                if "blobs" not in parse_qs(urlsplit(self.path).query):
                    listed = [{"rfilename": entry["rfilename"]} for entry in listed]
                body = {"id": name, "modelId": name, "sha": model.commit, "private": False, "gated": model.gated,
                        "downloads": 0, "likes": 0, "tags": [], "siblings": listed}
                return self._answer(200, json.dumps(body).encode())

            def _resolve(self, path, fault):
                name, _, rest = path.lstrip("/").partition("/resolve/")
                revision, _, file = rest.partition("/")
                model = self._model(name, revision)
                if model is None:
                    return None
                content = model.files.get(file)
                if content is None:
                    return self._error(404, "EntryNotFound", "Entry not found", {"x-repo-commit": model.commit})
                facts = {"x-repo-commit": model.commit, "accept-ranges": "bytes"}
                if not content.is_large:
                    return self._content(file, content, fault, facts)
                stated = content.listed(file)["lfs"]
                facts |= {"x-linked-size": str(stated["size"]), "x-linked-etag": f'"{stated["sha256"]}"',
                          "location": f"{hub.store}/large/{content.sha256}"}
                return self._answer(302, b"", facts)

            def _content(self, name, content, fault, facts):
                facts = {**facts, "etag": f'"{content.etag}"', "accept-ranges": "bytes"}
                asked, first = self.headers.get("range"), 0
                if asked and fault != "no-range":
                    first = int(asked.removeprefix("bytes=").split("-")[0])
                    if first >= content.size:
                        return self._answer(416, b"", {"content-range": f"bytes */{content.size}"})
                    facts["content-range"] = f"bytes {first}-{content.size - 1}/{content.size}"
                length = content.size - first
                cut = {"half": length // 2, "cut": length // 2}.get(fault, length)
                self.send_response(206 if "content-range" in facts else 200)
                for key, value in facts.items():
                    self.send_header(key, value)
                # "half" says that the half is all, "cut" breaks off.
                self.send_header("content-length", str(cut if fault == "half" else length + (64 if fault == "more" else 0)))
                self.end_headers()
                if self.command == "HEAD":
                    return None
                self._send(name, content, first, cut, other=fault == "other")
                if fault == "more":
                    self.wfile.write(b"x" * 64)
                if fault == "cut":
                    self.close_connection = True
                return None

            def _send(self, name, content, first, length, other):
                self.wfile.flush()
                began, done = time.monotonic(), 0
                source = open(content.path, "rb") if content.data is None else None
                try:
                    while done < length:
                        piece = min(length - done, 1 << 20 if not hub.bytes_per_second else 1 << 16)
                        if source and not other:
                            count = os.sendfile(self.connection.fileno(), source.fileno(), first + done, piece)
                        else:
                            data = content.data[first + done:first + done + piece] if content.data is not None else b"\0" * piece
                            self.connection.sendall(bytes(255 - byte for byte in data[:64]) + data[64:] if other else data)
                            count = piece
                        done += count
                        with hub.lock:
                            hub.sent[name] = hub.sent.get(name, 0) + count
                        if hub.bytes_per_second:
                            time.sleep(max(0.0, began + done / hub.bytes_per_second - time.monotonic()))
                except OSError:
                    self.close_connection = True
                finally:
                    if source:
                        source.close()

            def _error(self, status, code=None, message=None, headers=None):
                named = {"x-error-code": code, "x-error-message": message} if code else {}
                return self._answer(status, json.dumps({"error": message or status}).encode(), {**named, **(headers or {})})

            def _answer(self, status, body, headers=None):
                self.send_response(status)
                for key, value in {"content-type": "application/json", **(headers or {})}.items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


def tiny(large_bytes=3 << 20, seed=1, **more):
    """The files of a small model whose weights are that large."""
    weights = safetensors(large_bytes, seed)
    files = {
        "config.json": Content(b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}'),
        "tokenizer.json": Content(b'{"version": "1.0"}'),
        "README.md": Content(b"# A model\n"),
        "model.safetensors": Content(weights, large=True),
        "pytorch_model.bin": Content(b"\0" * 2048, large=True),
        "original/consolidated.00.pth": Content(b"\0" * 2048, large=True),
    }
    return Model(files, **more)


def safetensors(size, seed=1):
    """A file of that many bytes with one tensor in it."""
    room = size - 256
    head = json.dumps({"w": {"dtype": "U8", "shape": [room], "data_offsets": [0, room]}}).encode()
    head += b" " * (size - room - 8 - len(head))
    pattern = hashlib.sha256(str(seed).encode()).digest()
    return len(head).to_bytes(8, "little") + head + (pattern * (room // 32 + 1))[:room]
