"""langchain-openai: chat, streaming, tools."""

import ssl

import openai
from langchain_openai import ChatOpenAI

from checks.openai_client import Exchanges, raised
from checks.report import expect, wait_for
from clients.stand_in import NARROW, PLAIN, TOOL


def run(report, gateway, token):
    """All checks of this client."""
    transport = openai.DefaultHttpxClient(
        verify=ssl.create_default_context(cafile=gateway.ca), trust_env=False)
    chat = ChatOpenAI(
        base_url=gateway.url + "/v1", api_key=token, model=PLAIN, max_retries=0, max_tokens=20,
        http_client=transport, stream_usage=True,
    )
    with report.check("langchain-openai: invoke") as check:
        answer = chat.invoke("Hello!")
        expect(answer.content, f"{answer}")
        check.figure = f"{answer.usage_metadata['total_tokens']} tokens"
    with report.check("langchain-openai: stream, with usage") as check:
        pieces = list(chat.stream("Hello!"))
        text = "".join(str(piece.content) for piece in pieces)
        usage = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
        expect(text == answer.content, f"{text!r}, {answer.content!r}")
        expect(len(usage) == 1, f"usage {usage}")
        check.figure = f"{len(pieces)} pieces"
    with report.check("langchain-openai: a bound tool is called") as check:
        bound = chat.bind_tools([TOOL], tool_choice="weather").bind(max_tokens=200)
        called = bound.invoke("What is the weather in Oslo?").tool_calls
        expect([call["name"] for call in called] == ["weather"], f"{called}")
        check.figure = str(called[0]["args"])
    with report.check("langchain-openai: an unknown model and a bad token raise the SDK's own errors") as check:
        def other(**changes):
            return ChatOpenAI(**{
                "base_url": gateway.url + "/v1", "api_key": token, "model": PLAIN, "max_retries": 0, "max_tokens": 20,
                "http_client": transport, **changes})

        unknown = raised(openai.NotFoundError, lambda: other(model="nothing").invoke("Hello!"))
        bad = raised(openai.AuthenticationError, lambda: other(api_key="bad").invoke("Hello!"))
        check.figure = f"{unknown.code}, {bad.code}"
    with report.check("langchain-openai: 429 is retried as our headers ask; a stream given up frees its place") as check:
        def free():
            return gateway.metrics().sum("tidegate_in_flight_requests", deployment=f"{NARROW}/{NARROW}") == 0

        wait_for("a free place", free, 5)
        held = other(model=NARROW, max_tokens=20, extra_body={"ignore_eos": True}).stream("Hello!")
        next(held)
        seen = Exchanges()
        watched = openai.DefaultHttpxClient(
            verify=ssl.create_default_context(cafile=gateway.ca), trust_env=False,
            event_hooks={"request": [seen.on_request], "response": [seen.on_response]})
        other(model=NARROW, max_tokens=1, max_retries=5, http_client=watched).invoke("Hello!")
        held.close()
        pause, asked = seen.pause_before_retry(), seen.asked_pause()
        expect(seen.statuses[0] == 429, f"{seen.statuses}")
        expect(asked <= pause <= asked + 1.5, f"waited {pause:.2f} s, asked for {asked:.2f} s")
        wait_for("a free place", free, 2, pause=0.005)
        check.figure = f"statuses {seen.statuses}, waited {pause:.2f} s of {asked:.2f} s"
