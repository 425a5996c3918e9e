"""HTTP/2 frame by frame: a client on hyper-h2, which does what well-behaved clients do not."""

import json
import socket
import ssl

import h2.config
import h2.connection
import h2.events


class Peer:
    """One connection to a gateway. What the other side says is kept in `events`."""

    def __init__(self, gateway, token=None, seconds=20):
        self._token, self._host = token, f"localhost:{gateway.port}"
        trust = ssl.create_default_context(cafile=gateway.ca)
        trust.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", gateway.port), seconds)
        self.socket = trust.wrap_socket(plain, server_hostname="localhost")
        # What is sent is not held against the rules: breaking them is the point.
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False))
        self.h2.initiate_connection()
        self.events, self.is_closed = [], False
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        """Sends what was made."""
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, model, tokens, stream=True):
        """Begins a chat request; the number of its stream."""
        number = self.h2.get_next_available_stream_id()
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": tokens,
                           "ignore_eos": True, "stream": stream}).encode()
        self.h2.send_headers(number, self.head("POST", "/v1/chat/completions") + [("content-type", "application/json")])
        self.h2.send_data(number, body, end_stream=True)
        self.flush()
        return number

    def head(self, method, path):
        """The least that a request has."""
        head = [(":method", method), (":scheme", "https"), (":authority", self._host), (":path", path)]
        return head + ([("authorization", f"Bearer {self._token}")] if self._token else [])

    def read(self):
        """Takes what came, until there is something new or the end; whether it goes on."""
        data = self.socket.recv(65536)
        if not data:
            self.is_closed = True
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return True

    def until(self, found):
        """Reads until `found` returns something true, which is returned."""
        while not found():
            if not self.read():
                raise AssertionError(f"closed by the other side after {self.events[-3:]}")
        return found()

    def of(self, kind, stream=None):
        """Events of a kind, of one stream or of all."""
        return [event for event in self.events if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None))]

    def text(self, stream):
        """What came on a stream."""
        return b"".join(event.data for event in self.of(h2.events.DataReceived, stream)).decode()
