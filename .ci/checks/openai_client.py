"""The openai SDK against a Tidegate, with every exchange it makes written down."""

import ssl
import time

import openai


class Exchanges:
    """When each request left and what came back: status, headers, seconds."""

    def __init__(self):
        self.requests = []
        self.responses = []

    def on_request(self, request):
        """A request leaves; a retry is one more."""
        self.requests.append((time.monotonic(), request))

    def on_response(self, response):
        """The head of an answer has come."""
        self.responses.append((time.monotonic(), response))

    @property
    def statuses(self):
        """The statuses in order."""
        return [response.status_code for _, response in self.responses]

    def pause_before_retry(self):
        """Seconds from the first answer to the second request."""
        return self.requests[1][0] - self.responses[0][0]

    def asked_pause(self):
        """The seconds that the first answer asked for."""
        return float(self.responses[0][1].headers["retry-after-ms"]) / 1000


def client(gateway, token, *, base="/v1", retries=0, timeout=300.0, exchanges=None):
    """A client that trusts this gateway's authority."""
    hooks = {}
    if exchanges:
        hooks = {"request": [exchanges.on_request], "response": [exchanges.on_response]}
    transport = openai.DefaultHttpxClient(
        verify=ssl.create_default_context(cafile=gateway.ca), event_hooks=hooks, trust_env=False,
    )
    return openai.OpenAI(
        base_url=gateway.url + base, api_key=token, max_retries=retries, timeout=timeout,
        http_client=transport,
    )


def hello(words="Hello!"):
    """Messages of one turn."""
    return [{"role": "user", "content": words}]


def raised(kind, call):
    """The error of this kind that `call` must raise."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def text_of(stream):
    """The text of a chat stream, its number of pieces, and its usage."""
    text, pieces, usage = "", 0, None
    for event in stream:
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            pieces += 1
    return text, pieces, usage
