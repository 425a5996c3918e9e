"""The openai SDK for Python at the endpoints beside text: sounds, stored responses, realtime."""

import base64
import io
import json
import ssl

import openai
import websockets.sync.client

from checks import openai_client
from checks.openai_client import raised
from checks.report import expect, wait_for
from clients.engines import KEEPER, VOICE

#: Two seconds, by the measure of the stand-in.
SOUND = b"RIFF" + bytes(range(256)) * 250


def run(report, gateway, token):
    """All checks of this client."""
    sdk = openai_client.client(gateway, token)
    _sounds(report, gateway, sdk)
    _stored(report, gateway, sdk, token)
    _realtime(report, gateway, sdk, token)


def _file():
    return ("a sound.wav", io.BytesIO(SOUND))


def _sounds(report, gateway, sdk):
    with report.check("openai-python: a transcription, with its seconds in the access log") as check:
        answer = sdk.audio.transcriptions.create(model=VOICE, file=_file())
        expect(answer.text and answer.usage.seconds == 3, f"{answer}")
        logged = wait_for("the line", lambda: _line(gateway, "transcriptions"), 5)
        expect(logged["audio_seconds"] == 3, f"{logged}")
        check.figure = f"{answer.usage.seconds} s: {answer.text[:40]!r}"
    with report.check("openai-python: a translation, as plain text") as check:
        text = sdk.audio.translations.create(model=VOICE, file=_file(), response_format="text")
        expect(text and isinstance(text, str), f"{text!r}")
        check.figure = text.strip()[:40]
    with report.check("openai-python: a transcription as a stream") as check:
        events = list(sdk.audio.transcriptions.create(model=VOICE, file=_file(), stream=True))
        text = "".join(event.choices[0]["delta"]["content"] for event in events)
        expect(text == answer.text, f"{text!r}, {answer.text!r}")
        check.figure = f"{len(events)} events"
    with report.check("openai-python: an unknown model in a form: NotFoundError") as check:
        error = raised(openai.NotFoundError, lambda: sdk.audio.transcriptions.create(model="nothing", file=_file()))
        expect(error.code == "model_not_found", f"{error.body}")
        check.figure = error.code


def _line(gateway, api):
    logged = gateway.last_access()
    return logged if logged.get("api") == api else None


def _stored(report, gateway, sdk, token):
    with report.check("openai-python: a response is retrieved, made at once or as a stream") as check:
        made = sdk.responses.create(model=KEEPER, input="Hello!", max_output_tokens=20)
        again = sdk.responses.retrieve(made.id)
        expect(again.output_text == made.output_text, f"{again}")
        events = list(sdk.responses.create(model=KEEPER, input="Hello!", max_output_tokens=20, stream=True))
        streamed = sdk.responses.retrieve(events[-1].response.id)
        expect(streamed.output_text == events[-1].response.output_text, f"{streamed}")
        check.figure = made.id
    with report.check("openai-python: its tokens are counted once, however often it is fetched") as check:
        def counted():
            return gateway.metrics().sum("tidegate_tokens_total", route=KEEPER, kind="completion") or \
                gateway.metrics().sum("tidegate_tokens_total", kind="completion")

        before = counted()
        for _ in range(3):
            sdk.responses.retrieve(made.id)
        expect(counted() == before, f"{counted()} after {before}")
        check.figure = f"{int(before)} tokens"
    with report.check("openai-python: a response in the background is cancelled") as check:
        begun = sdk.responses.create(
            model=KEEPER, input="Hello!", max_output_tokens=4000, background=True, extra_body={"ignore_eos": True})
        expect(begun.status == "queued", begun.status)
        cancelled = sdk.responses.cancel(begun.id)
        expect(cancelled.status == "cancelled", cancelled.status)
        expect(sdk.responses.retrieve(begun.id).status == "cancelled", "it is not cancelled")
        check.figure = f"{begun.status}, {cancelled.status}"
    with report.check("openai-python: what was never made, or for another workspace: NotFoundError") as check:
        stranger = openai_client.client(gateway, gateway.token("--workspace", "w2", "--project", "research"))
        for call in (lambda: sdk.responses.retrieve("resp_nothing"), lambda: stranger.responses.retrieve(made.id),
                     lambda: stranger.responses.cancel(made.id)):
            error = raised(openai.NotFoundError, call)
            expect(error.code == "response_not_found", f"{error.body}")
        check.figure = error.body["message"]


def _talk(send, receive):
    """Sends two pieces of sound; returns what was said, with its usage."""
    for _ in range(2):
        send({"type": "input_audio_buffer.append", "audio": base64.b64encode(SOUND[:3200]).decode()})
    send({"type": "input_audio_buffer.commit"})
    send({"type": "input_audio_buffer.commit", "final": True})
    said = ""
    while True:
        event = receive()
        if event["type"] == "transcription.delta":
            said += event["delta"]
        if event["type"] == "transcription.done":
            expect(event["text"] == said, f"{event}, {said!r}")
            return said, event["usage"]
        expect(event["type"] != "error", f"{event}")


def _realtime(report, gateway, sdk, token):
    trust = ssl.create_default_context(cafile=gateway.ca)
    with report.check("openai-python: realtime, the model in the address") as check:
        with sdk.realtime.connect(model=VOICE, websocket_connection_options={"ssl": trust}) as connection:
            created = json.loads(connection.recv_bytes())
            expect(created["type"] == "session.created", f"{created}")
            connection.send({"type": "session.update", "session": {"type": "realtime"}})
            said, usage = _talk(connection.send, lambda: json.loads(connection.recv_bytes()))
        logged = wait_for("the line", lambda: _line(gateway, "realtime"), 5)
        expect(logged["outcome"] == "ok" and logged["completion_tokens"] == usage["completion_tokens"], f"{logged}")
        check.figure = f"{usage['prompt_tokens']}+{usage['completion_tokens']} tokens: {said!r}"
    with report.check("websockets: realtime, the model in the first event, as vLLM's clients do") as check:
        with websockets.sync.client.connect(
            gateway.url.replace("https", "wss") + "/v1/realtime", ssl=trust,
            additional_headers={"Authorization": f"Bearer {token}"},
        ) as socket:
            created = json.loads(socket.recv(timeout=10))
            expect(created["type"] == "session.created", f"{created}")
            socket.send(json.dumps({"type": "session.update", "model": VOICE}))
            again, _ = _talk(lambda event: socket.send(json.dumps(event)), lambda: json.loads(socket.recv(timeout=10)))
            expect(again == said, f"{again!r}, {said!r}")
            pong = socket.ping()
            expect(pong.wait(5), "no pong")
        check.figure = repr(again)
    with report.check("websockets: a model that is not for this token is told, and the end") as check:
        with websockets.sync.client.connect(
            gateway.url.replace("https", "wss") + "/v1/realtime", ssl=trust,
            additional_headers={"Authorization": f"Bearer {token}"},
        ) as socket:
            socket.recv(timeout=10)
            socket.send(json.dumps({"type": "session.update", "model": "nothing"}))
            told = json.loads(socket.recv(timeout=10))
            expect(told["error"]["code"] == "model_not_found", f"{told}")
            closed = raised(websockets.exceptions.ConnectionClosed, lambda: socket.recv(timeout=10))
            expect(closed.rcvd.code == 1008, f"{closed}")
        check.figure = f"{told['error']['code']}, close {closed.rcvd.code}"
