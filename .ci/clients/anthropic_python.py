"""The anthropic SDK for Python: another API, another header for the token."""

import ssl
import time

import anthropic

from checks.openai_client import Exchanges, hello, raised
from checks.report import expect, wait_for
from clients.stand_in import COLD_ANTHROPIC, CUT, NARROW, PLAIN


def _client(gateway, token, retries=0, exchanges=None):
    hooks = {}
    if exchanges:
        hooks = {"request": [exchanges.on_request], "response": [exchanges.on_response]}
    transport = anthropic.DefaultHttpxClient(
        verify=ssl.create_default_context(cafile=gateway.ca), event_hooks=hooks, trust_env=False)
    return anthropic.Anthropic(base_url=gateway.url, api_key=token, max_retries=retries, http_client=transport)


def run(report, gateway, token):
    """All checks of this client."""
    sdk = _client(gateway, token)
    with report.check("anthropic: a message") as check:
        answer = sdk.messages.create(model=PLAIN, max_tokens=20, messages=hello())
        expect(answer.content[0].text, "no text")
        expect(answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, f"{answer.usage}")
        check.figure = f"{answer.usage.input_tokens}+{answer.usage.output_tokens} tokens"
    with report.check("anthropic: a stream, counted as the SDK counts it") as check:
        def ours():
            samples = gateway.metrics()
            return [samples.sum("tidegate_tokens_total", deployment=f"{PLAIN}/{PLAIN}", kind=kind)
                    for kind in ("prompt", "completion")]

        before = ours()
        with sdk.messages.stream(model=PLAIN, max_tokens=20, messages=hello()) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        told = [final.usage.input_tokens, final.usage.output_tokens]
        counted = [int(now - then) for now, then in zip(ours(), before)]
        expect(text and counted == told, f"SDK {told}, Tidegate {counted}")
        check.figure = f"{told[0]}+{told[1]} tokens"
    with report.check("anthropic: count_tokens") as check:
        counted = sdk.messages.count_tokens(model=PLAIN, messages=hello())
        expect(counted.input_tokens > 0, f"{counted}")
        check.figure = f"{counted.input_tokens} tokens"
    with report.check("anthropic: errors in Anthropic's form") as check:
        unknown = raised(anthropic.NotFoundError, lambda: sdk.messages.create(
            model="nothing", max_tokens=1, messages=hello()))
        expect(unknown.body["type"] == "error", f"{unknown.body}")
        expect(unknown.body["error"]["type"] == "not_found_error", f"{unknown.body}")
        bad = raised(anthropic.AuthenticationError, lambda: _client(gateway, "bad").messages.create(
            model=PLAIN, max_tokens=1, messages=hello()))
        expect(bad.body["error"]["type"] == "authentication_error", f"{bad.body}")
        check.figure = f"{type(unknown).__name__}, {type(bad).__name__}"
    _retries(report, gateway, token)
    _broken(report, gateway, sdk)


def _retries(report, gateway, token):
    with report.check("anthropic: 503 while loading; the retries obey our headers and are answered") as check:
        seen = Exchanges()
        patient = _client(gateway, token, retries=10, exchanges=seen)
        answer = patient.messages.create(model=COLD_ANTHROPIC, max_tokens=5, messages=hello())
        expect(answer.content, "no content")
        check.figure = _obeyed(seen, 503)
    with report.check("anthropic: 429 at the limit; the retry obeys our headers; an abort frees the place") as check:
        held = _client(gateway, token).messages.create(
            model=NARROW, max_tokens=400, messages=hello(), stream=True, extra_body={"ignore_eos": True})
        next(iter(held))
        limited = raised(anthropic.RateLimitError, lambda: _client(gateway, token).messages.create(
            model=NARROW, max_tokens=1, messages=hello()))
        expect(limited.body["error"]["type"] == "rate_limit_error", f"{limited.body}")
        held.close()
        began = time.monotonic()
        wait_for("a free place", lambda: gateway.metrics().sum(
            "tidegate_in_flight_requests", deployment=f"{NARROW}/{NARROW}") == 0, 2, pause=0.005)
        free = time.monotonic() - began
        # A short stream holds the place now, so that the second try finds it free.
        held = _client(gateway, token).messages.create(
            model=NARROW, max_tokens=20, messages=hello(), stream=True, extra_body={"ignore_eos": True})
        next(iter(held))
        seen = Exchanges()
        _client(gateway, token, retries=5, exchanges=seen).messages.create(
            model=NARROW, max_tokens=1, messages=hello())
        held.close()
        check.figure = f"free after {free * 1000:.0f} ms; {_obeyed(seen, 429)}"


def _obeyed(seen, first):
    expect(seen.statuses[0] == first and seen.statuses[-1] == 200, f"{seen.statuses}")
    pause, asked = seen.pause_before_retry(), seen.asked_pause()
    expect(asked <= pause <= asked + 1.5, f"waited {pause:.2f} s, asked for {asked:.2f} s")
    return f"statuses {seen.statuses}, waited {pause:.2f} s of {asked:.2f} s"


def _broken(report, gateway, sdk):
    with report.check("anthropic: a stream that breaks off raises APIError") as check:
        stream = sdk.messages.create(model=CUT, max_tokens=20, messages=hello(), stream=True)
        error = raised(anthropic.APIError, lambda: list(stream))
        expect(error.body["error"]["type"] == "api_error", f"{error.body}")
        check.figure = error.body["error"]["message"]
