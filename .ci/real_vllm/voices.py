"""Sound and classes: transcriptions, translations, realtime and classify, on two more models."""

import base64
import io
import json
import math
import ssl
import struct
import subprocess
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import websockets.sync.client

from checks.report import expect, wait_for
from real_vllm.counts import alike
from real_vllm.served import Served

#: Longest start, in seconds: two at once on two cores.
START_MAX = 900
#: Seconds of sound, and samples of one.
SECONDS, RATE = 2, 16_000
#: Tokens of a transcription; the models have no end of their own.
TOKENS = 12


def file(models):
    """The route file: two deployments without weights of their own."""
    text = f"""
[route]
name = "voices"
project = "research"
[route.timeouts]
cold_start = "{START_MAX}s"

[instance]
name = "voices"
project = "research"
[instance.options]
dtype = "float32"
load_format = "dummy"
max_model_len = 512
enforce_eager = true
"""
    for name, path in models.items():
        text += f'[[deployment]]\nmodel = "{path}"\nendpoint_name = "{name}"\n'
    return text


def _samples():
    return b"".join(struct.pack("<h", int(8_000 * math.sin(at * 0.05))) for at in range(SECONDS * RATE))


def _wav():
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(_samples())
    return made.getvalue()


def _counts(served):
    """What Tidegate and vLLM have counted: prompt and completion tokens of each."""
    return served.counted(), served.worker().tokens()


def _alike(check, served, before, told):
    """Waits until both have counted what was told."""
    def counts():
        ours, theirs = ([int(now - then) for now, then in zip(*pair)] for pair in zip(_counts(served), before))
        check.figure = f"told {told}, Tidegate {ours}, vLLM {theirs} (prompt, completion)"
        return alike(told, ours, theirs)

    wait_for("equal counts", counts, 10)


class Voices:
    """A model that hears, `delta`, and one that sorts, `epsilon`; asked for at once, as each takes its time."""

    def __init__(self, gateway, token):
        self.delta, self.epsilon = (
            Served(gateway, token, name, f"voices/{name}", 512) for name in ("delta", "epsilon"))
        self._pool = ThreadPoolExecutor(2)
        self._heard, self._sorted = self._pool.submit(self._hear), self._pool.submit(self._sort)

    def _hear(self):
        return self.delta.sdk(timeout=START_MAX).audio.transcriptions.create(
            model="delta", file=("a.wav", _wav()), language="en", temperature=0, extra_body={"max_completion_tokens": TOKENS})

    def _sort(self):
        body = {"model": "epsilon", "input": ["a fox", "a gateway"]}
        return self.epsilon.sdk(timeout=START_MAX).post("/classify", body=body, cast_to=object)

    def all(self):
        """Both."""
        return [self.delta, self.epsilon]

    def run(self, report):
        """All checks."""
        with report.check("delta: a transcription, by the model that its form names, as vLLM makes it when asked directly") as check:
            heard = self._heard.result(START_MAX)
            expect(heard.text and heard.usage.seconds == SECONDS, f"{heard}")
            direct = _direct(self.delta.worker(), "transcriptions")
            expect(heard.text == direct["text"], f"{heard.text!r}, {direct}")
            check.figure = f"{heard.usage.seconds} s: {heard.text!r}"
        with report.check("delta: a translation, and a transcription as a stream") as check:
            sdk, same = self.delta.sdk(), {"model": "delta", "temperature": 0}
            more = {"extra_body": {"max_completion_tokens": TOKENS, "to_language": "en"}}
            text = sdk.audio.translations.create(file=("a.wav", _wav()), **same, **more).text
            direct = _direct(self.delta.worker(), "translations")
            expect(text == direct["text"], f"{text!r}, {direct}")
            more = {"extra_body": {"max_completion_tokens": TOKENS}}
            events = list(sdk.audio.transcriptions.create(
                file=("a.wav", _wav()), language="en", stream=True, **same, **more))
            streamed = "".join(event.choices[0]["delta"].get("content", "") for event in events if event.choices)
            expect(streamed == heard.text, f"{streamed!r}, {heard.text!r}")
            check.figure = f"{text!r}; {len(events)} events"
        with report.check("delta: realtime, by the model of the first event; counted once, when it ends") as check:
            before = _counts(self.delta)
            told = self._talk()
            _alike(check, self.delta, before, [told["prompt_tokens"], told["completion_tokens"]])
            expect(self.delta.gateway.last_access()["outcome"] == "ok", f"{self.delta.gateway.last_access()}")
        with report.check("epsilon: classify, counted as it tells") as check:
            answer, before = self._sorted.result(START_MAX), _counts(self.epsilon)
            again = self._sort()
            expect(again["data"] == answer["data"], f"{again}, {answer}")
            expect([len(one["probs"]) for one in answer["data"]] == [3, 3], f"{answer}")
            expect(all(abs(sum(one["probs"]) - 1) < 0.01 for one in answer["data"]), f"{answer}")
            _alike(check, self.epsilon, before, [again["usage"]["prompt_tokens"], 0])
            check.figure += f"; {[one['label'] for one in answer['data']]}"

    def _talk(self):
        """Sends the sound in pieces; the usage of what was said."""
        gateway, samples = self.delta.gateway, _samples()
        with websockets.sync.client.connect(
            gateway.url.replace("https", "wss") + "/v1/realtime", ssl=ssl.create_default_context(cafile=gateway.ca),
            additional_headers={"Authorization": f"Bearer {self.delta.token}"},
        ) as line:
            def send(kind, **more):
                line.send(json.dumps({"type": kind, **more}))

            expect(json.loads(line.recv(timeout=20))["type"] == "session.created", "no greeting")
            send("session.update", model="delta")
            for at in range(0, len(samples), RATE):
                send("input_audio_buffer.append", audio=base64.b64encode(samples[at:at + RATE]).decode())
            send("input_audio_buffer.commit")
            send("input_audio_buffer.commit", final=True)
            said = ""
            while True:
                event = json.loads(line.recv(timeout=60))
                expect(event["type"] in ("transcription.delta", "transcription.done"), f"{event}")
                if event["type"] == "transcription.done":
                    expect(event["text"] == said, f"{event}, {said!r}")
                    return event["usage"]
                said += event["delta"]


def _direct(worker, what):
    """The same of the worker, past Tidegate, with the key that it was started with."""
    environment = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    key = next(entry.partition(b"=")[2] for entry in environment if entry.startswith(b"VLLM_API_KEY=")).decode()
    language = "language=en" if what == "transcriptions" else "to_language=en"
    done = subprocess.run(
        ["curl", "-sS", "-m", "60", "--unix-socket", worker.socket, "-H", f"Authorization: Bearer {key}", "-F", "model=delta", "-F", "file=@-;filename=a.wav",
         "-F", "temperature=0", "-F", language, "-F", f"max_completion_tokens={TOKENS}", f"http://worker/v1/audio/{what}"],
        input=_wav(), capture_output=True, timeout=90, check=False)
    expect(done.returncode == 0, done.stderr.decode())
    return json.loads(done.stdout)
