"""langchain-openai: chat, streaming, tools."""

import ssl

import openai
from langchain_openai import ChatOpenAI

from checks.report import expect
from clients.stand_in import PLAIN, TOOL


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
