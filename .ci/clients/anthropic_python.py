"""The anthropic SDK for Python: another API, another header for the token."""

import ssl

import anthropic

from checks.openai_client import hello, raised
from checks.report import expect
from clients.stand_in import PLAIN


def _client(gateway, token):
    transport = anthropic.DefaultHttpxClient(
        verify=ssl.create_default_context(cafile=gateway.ca), trust_env=False)
    return anthropic.Anthropic(base_url=gateway.url, api_key=token, max_retries=0, http_client=transport)


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
