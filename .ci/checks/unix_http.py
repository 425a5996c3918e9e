"""HTTP over a Unix socket: how a worker is asked behind Tidegate's back."""

import http.client
import socket


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("worker", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(socket_path, path, timeout=30.0):
    """The body of `GET path`; raises unless the answer is 200."""
    return ask(socket_path, "GET", path, None, timeout)


def ask(socket_path, method, path, body, timeout=30.0):
    """The body of the answer; raises unless it is 200."""
    connection = _Connection(socket_path, timeout)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise AssertionError(f"{method} {path} of the worker: {response.status} {body[:200]}")
    return body
