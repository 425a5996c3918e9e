"""The openai SDK for Python."""

import asyncio
import json
import ssl
import time

import openai

from checks import openai_client, processes, unix_http
from checks.openai_client import Exchanges, hello, raised, text_of
from checks.report import expect, wait_for
from clients.stand_in import BROKEN, COLD, CUT, NARROW, PLAIN, TOOL


def run(report, gateway, token):
    """All checks of this client."""
    sdk = openai_client.client(gateway, token)
    _answers(report, gateway, sdk, token)
    _tools(report, sdk)
    _refusals(report, gateway, sdk, token)
    _retries(report, gateway, token)
    _abort(report, gateway, token)


def _answers(report, gateway, sdk, token):
    with report.check("openai-python: chat, with the same text as a stream") as check:
        whole = sdk.chat.completions.create(model=PLAIN, messages=hello(), temperature=0)
        text, pieces, _ = text_of(sdk.chat.completions.create(
            model=PLAIN, messages=hello(), temperature=0, stream=True))
        expect(text == whole.choices[0].message.content, f"{text!r}, {whole.choices[0].message.content!r}")
        check.figure = f"{pieces} pieces"
    with report.check("openai-python: by the path of the route, the model left to it") as check:
        by_path = openai_client.client(gateway, token, base=f"/{PLAIN}/v1")
        answer = by_path.chat.completions.create(model=PLAIN, messages=hello())
        listed = [model.id for model in by_path.models.list()]
        expect(listed == [PLAIN], f"{listed}")
        check.figure = answer.choices[0].finish_reason
    with report.check("openai-python, asynchronous: 20 streams at once") as check:
        check.figure = asyncio.run(_many(gateway, token, 20))
    with report.check("openai-python: every answered request counts as ok, none as client_gone") as check:
        ours = gateway.metrics()
        gone = ours.sum("tidegate_requests_total", outcome="client_gone")
        fine = ours.sum("tidegate_requests_total", route=PLAIN, outcome="ok")
        check.figure = f"ok {int(fine)}, client_gone {int(gone)}"
        expect(gone == 0 and fine >= 23, "answers were counted as given up")


async def _many(gateway, token, count):
    transport = openai.DefaultAsyncHttpxClient(
        verify=ssl.create_default_context(cafile=gateway.ca), trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=gateway.url + "/v1", api_key=token, max_retries=0, http_client=transport
    ) as sdk:
        async def one(number):
            stream = await sdk.chat.completions.create(
                model=PLAIN, messages=hello(f"Number {number}"), max_tokens=50, stream=True,
                stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
            return [event async for event in stream][-1].usage.completion_tokens

        began = time.monotonic()
        tokens = await asyncio.gather(*(one(number) for number in range(count)))
    expect(tokens == [50] * count, f"{tokens}")
    return f"{sum(tokens)} tokens in {time.monotonic() - began:.2f} s"


def _tools(report, sdk):
    with report.check("openai-python: a tool call is passed through, streaming and not") as check:
        ask = {"model": PLAIN, "messages": hello("What is the weather in Oslo?"), "tools": [TOOL],
               "tool_choice": "required"}
        call = sdk.chat.completions.create(**ask).choices[0].message.tool_calls[0]
        expect(call.function.name == "weather", f"{call}")
        json.loads(call.function.arguments)
        arguments = ""
        for event in sdk.chat.completions.create(**ask, stream=True):
            for choice in event.choices:
                for part in choice.delta.tool_calls or []:
                    arguments += part.function.arguments or ""
        expect(arguments == call.function.arguments, f"{arguments!r}, {call.function.arguments!r}")
        check.figure = arguments


def _refusals(report, gateway, sdk, token):
    def chat(client, model, **more):
        return client.chat.completions.create(model=model, messages=hello(), **more)

    cases = [
        ("an unknown model", openai.NotFoundError, "model_not_found", lambda: chat(sdk, "nothing")),
        ("a bad token", openai.AuthenticationError, "invalid_api_key",
         lambda: chat(openai_client.client(gateway, "bad"), PLAIN)),
        ("no model", openai.BadRequestError, "model_required", lambda: chat(sdk, "")),
        ("an endpoint that the model has not", openai.NotFoundError, "unsupported_endpoint",
         lambda: sdk.embeddings.create(model=PLAIN, input="x")),
        ("an unknown path", openai.NotFoundError, "unknown_path",
         lambda: sdk.files.list()),
    ]
    for name, kind, code, call in cases:
        with report.check(f"openai-python: {name}: {kind.__name__}") as check:
            error = raised(kind, call)
            expect(error.code == code, f"code {error.code}: {error.body}")
            expect(error.request_id, "no x-request-id")
            check.figure = f"{error.code}: {error.body['message']}"
    with report.check("openai-python: a revoked token is refused on the next request") as check:
        made = gateway.run("token", "create", "--workspace", "w1", "--project", "research", "--json").stdout
        short = openai_client.client(gateway, json.loads(made)["token"])
        short.models.list()
        gateway.run("token", "revoke", json.loads(made)["record"]["jti"])
        error = raised(openai.AuthenticationError, short.models.list)
        expect(error.code == "token_revoked", f"{error.body}")
        check.figure = error.code
    with report.check("openai-python: a stream that breaks off raises APIError") as check:
        stream = sdk.chat.completions.create(model=CUT, messages=hello(), stream=True)
        error = raised(openai.APIError, lambda: list(stream))
        check.figure = f"{error.code}: {error.message}"
        expect(error.code == "upstream_disconnected", f"{error.body}")


def _retries(report, gateway, token):
    with report.check("openai-python: 503 while loading; the retries obey our headers and are answered") as check:
        seen = Exchanges()
        sdk = openai_client.client(gateway, token, retries=10, exchanges=seen)
        answer = sdk.chat.completions.create(model=COLD, messages=hello())
        expect(answer.choices[0].message.content, "no content")
        expect(seen.statuses[0] == 503 and seen.statuses[-1] == 200, f"{seen.statuses}")
        pause, asked = seen.pause_before_retry(), seen.asked_pause()
        expect(asked <= pause <= asked + 1.5, f"waited {pause:.2f} s, asked for {asked:.2f} s")
        check.figure = f"statuses {seen.statuses}, waited {pause:.2f} s of {asked:.2f} s"
    with report.check("openai-python: 429 at the limit; the retry obeys our headers and is answered") as check:
        slow = openai_client.client(gateway, token)
        held = slow.chat.completions.create(
            model=NARROW, messages=hello(), max_tokens=20, stream=True, extra_body={"ignore_eos": True})
        next(iter(held))
        error = raised(openai.RateLimitError, lambda: slow.chat.completions.create(
            model=NARROW, messages=hello()))
        expect(error.code == "concurrency_limit_exceeded", f"{error.body}")
        seen = Exchanges()
        retrying = openai_client.client(gateway, token, retries=5, exchanges=seen)
        retrying.chat.completions.create(model=NARROW, messages=hello(), max_tokens=1)
        held.close()
        pause, asked = seen.pause_before_retry(), seen.asked_pause()
        expect(asked <= pause <= asked + 1.5, f"waited {pause:.2f} s, asked for {asked:.2f} s")
        check.figure = f"statuses {seen.statuses}, waited {pause:.2f} s of {asked:.2f} s"
    with report.check("openai-python: an engine's 500 is InternalServerError") as check:
        sdk = openai_client.client(gateway, token)
        sdk.chat.completions.create(model=BROKEN, messages=hello())
        worker = processes.argument_after(gateway.deployment(f"{BROKEN}/{BROKEN}")["pid"], "--uds")
        unix_http.ask(worker, "POST", "/sim/fault", '{"fault": "status-500"}')
        error = raised(openai.InternalServerError, lambda: sdk.chat.completions.create(
            model=BROKEN, messages=hello()))
        check.figure = f"{error.status_code}: {error.body}"[:120]
        expect(isinstance(error.body, dict) and "message" in error.body, f"{error.body!r}")


def _abort(report, gateway, token):
    with report.check("openai-python: a stream that is given up frees its place") as check:
        sdk = openai_client.client(gateway, token)

        def free():
            return gateway.metrics().sum("tidegate_in_flight_requests", deployment=f"{NARROW}/{NARROW}") == 0

        wait_for("a free place", free, 5)
        stream = sdk.chat.completions.create(
            model=NARROW, messages=hello(), max_tokens=400, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        expect(not free(), "no request in flight")
        stream.close()
        began = time.monotonic()
        wait_for("a free place", free, 2, pause=0.005)
        took = time.monotonic() - began
        sdk.chat.completions.create(model=NARROW, messages=hello(), max_tokens=1)
        check.figure = f"free after {took * 1000:.0f} ms"
