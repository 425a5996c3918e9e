"""Requests of every kind to two models of one instance."""

import threading
import time

import openai

from checks import openai_client
from checks.openai_client import hello, raised, text_of
from checks.report import expect, wait_for
from real_vllm.counts import alike

#: vLLM 0.32 goes on past the end token with it, so that the number of tokens is known.
GO_ON = {"ignore_eos": True}


class Usage:
    """What the SDK was told, summed up to be compared with the counters."""

    def __init__(self):
        self.prompt = 0
        self.completion = 0

    def add(self, usage):
        """Adds the usage of one answer."""
        self.prompt += usage.prompt_tokens
        self.completion += getattr(usage, "completion_tokens", 0) or 0


def answers(report, served):
    """The endpoints that a text model has, each compared with the counters at the end."""
    sdk, model, usage = served.sdk(), served.model, Usage()
    before, ours_before = served.worker().tokens(), served.counted()
    with report.check(f"{model}: chat") as check:
        answer = sdk.chat.completions.create(model=model, messages=hello(), max_tokens=20, extra_body=GO_ON)
        usage.add(answer.usage)
        expect(answer.model == model, f"the answer names {answer.model}")
        expect(answer.usage.completion_tokens == 20, f"{answer.usage}")
        expect(answer.choices[0].message.content, "no content")
        expect(answer._request_id, "no x-request-id")
        check.figure = f"{answer.usage.prompt_tokens}+{answer.usage.completion_tokens} tokens"
    with report.check(f"{model}: chat, streaming with usage") as check:
        stream = sdk.chat.completions.create(
            model=model, messages=hello(), max_tokens=40, stream=True,
            stream_options={"include_usage": True}, extra_body=GO_ON,
        )
        text, pieces, told = text_of(stream)
        expect(told and told.completion_tokens == 40, f"usage {told}")
        usage.add(told)
        expect(text and pieces > 5, f"{pieces} pieces: {text[:80]!r}")
        check.figure = f"{pieces} pieces"
    with report.check(f"{model}: chat, streaming without usage, counted all the same") as check:
        # A stream is counted when it is over for the gateway, a moment after the SDK has read it.
        so_far = (ours_before[0] + usage.prompt, ours_before[1] + usage.completion)
        wait_for("the count of what came before", lambda: served.counted() == so_far, 5)
        ours = so_far
        stream = sdk.chat.completions.create(
            model=model, messages=hello(), max_tokens=30, stream=True, extra_body=GO_ON)
        events = list(stream)
        expect(all(event.usage is None for event in events), "usage that was not asked for was passed on")
        expect(all(event.choices for event in events), "an event without choices was passed on")
        counted = wait_for("the count of a stream", lambda: _more(served.counted(), ours), 5)
        expect(counted[1] == 30, f"{counted} tokens counted")
        usage.prompt, usage.completion = usage.prompt + counted[0], usage.completion + counted[1]
        check.figure = f"{len(events)} events, {int(counted[0])}+{int(counted[1])} tokens"
    with report.check(f"{model}: streaming and not give the same text"):
        ask = {"model": model, "messages": hello("Tell me."), "max_tokens": 25, "temperature": 0,
               "extra_body": GO_ON}
        whole = sdk.chat.completions.create(**ask)
        usage.add(whole.usage)
        pieces, _, told = text_of(sdk.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}))
        usage.add(told)
        expect(pieces == whole.choices[0].message.content, f"{pieces!r} / {whole.choices[0].message.content!r}")
    with report.check(f"{model}: completions, both ways") as check:
        answer = sdk.completions.create(model=model, prompt="The quick", max_tokens=15, extra_body=GO_ON)
        usage.add(answer.usage)
        events = list(sdk.completions.create(
            model=model, prompt="The quick", max_tokens=15, stream=True,
            stream_options={"include_usage": True}, extra_body=GO_ON))
        usage.add(events[-1].usage)
        expect(answer.usage.completion_tokens == 15 == events[-1].usage.completion_tokens, "not 15 tokens")
        check.figure = f"{len(events)} events"
    with report.check(f"{model}: responses, both ways") as check:
        answer = sdk.responses.create(model=model, input="Hello", max_output_tokens=16)
        events = list(sdk.responses.create(model=model, input="Hello", max_output_tokens=16, stream=True))
        last = events[-1]
        expect(last.type in ("response.completed", "response.incomplete"), f"ends with {last.type}")
        for told in (answer.usage, last.response.usage):
            usage.prompt, usage.completion = usage.prompt + told.input_tokens, usage.completion + told.output_tokens
        check.figure = f"{len(events)} events"
    _compare_usage(report, served, usage, before, ours_before)


def stored(report, served):
    """Responses that vLLM keeps: found again by their id alone, and cancelled."""
    sdk, model = served.sdk(), served.model
    with report.check(f"{model}: a response is retrieved by its id, and no one else finds it") as check:
        made = sdk.responses.create(model=model, input="Hello", max_output_tokens=8)
        again = sdk.responses.retrieve(made.id)
        expect(again.output_text == made.output_text, f"{again}, {made}")
        stranger = served.sdk(served.gateway.token("--workspace", "w2", "--project", "research"))
        for call in (lambda: sdk.responses.retrieve("resp_nothing"), lambda: stranger.responses.retrieve(made.id)):
            error = raised(openai.NotFoundError, call)
            expect(error.code == "response_not_found", f"{error.body}")
        check.figure = made.id
    with report.check(f"{model}: a response in the background is cancelled, and vLLM is rid of it") as check:
        begun = sdk.responses.create(model=model, input="Hello", max_output_tokens=served.tokens_max, background=True,
                                     extra_body=GO_ON)
        served.worker().wait_running(1, 10)
        cancelled = sdk.responses.cancel(begun.id)
        expect(cancelled.status == "cancelled", cancelled.status)
        took = served.worker().wait_running(0, 10)
        expect(sdk.responses.retrieve(begun.id).status == "cancelled", "it is not cancelled")
        check.figure = f"{begun.status}, {cancelled.status}; gone after {took:.2f} s"


def _more(now, before):
    more = tuple(new - old for new, old in zip(now, before))
    return more if more[1] > 0 else None


def _compare_usage(report, served, usage, before, ours_before):
    with report.check(f"{served.model}: the SDK, tidegate_tokens_total and vLLM count the same") as check:
        told = (usage.prompt, usage.completion)

        def counts():
            ours = tuple(int(now - then) for now, then in zip(served.counted(), ours_before))
            theirs = tuple(int(now - then) for now, then in zip(served.worker().tokens(), before))
            check.figure = f"SDK {told}, Tidegate {ours}, vLLM {theirs} (prompt, completion)"
            return alike(told, ours, theirs)

        wait_for("equal counts", counts, 5)


def refusals(report, served):
    """What is refused, and the class of error that the SDK makes of it."""
    sdk, model = served.sdk(), served.model
    with report.check("embeddings of a text model: NotFoundError with an OpenAI error object") as check:
        error = raised(openai.NotFoundError, lambda: sdk.embeddings.create(model=model, input="x"))
        expect(isinstance(error.body, dict) and error.body.get("message"), f"body {error.body!r}")
        expect(set(error.body) >= {"message", "type", "param", "code"}, f"keys of {error.body}")
        check.figure = f"{error.code}: {error.body['message']}"
    with report.check("an unknown model: NotFoundError, without the names of others") as check:
        error = raised(openai.NotFoundError, lambda: sdk.chat.completions.create(
            model="no-such-model", messages=hello()))
        expect(error.code == "model_not_found" and error.param == "model", f"{error.body}")
        expect(model not in str(error), f"a name leaks: {error}")
        check.figure = error.body["message"]
    with report.check("a forbidden model is refused in the same words") as check:
        stranger = served.sdk(token=served.gateway.token("--workspace", "w2", "--project", "elsewhere"))
        error = raised(openai.NotFoundError, lambda: stranger.chat.completions.create(
            model=model, messages=hello()))
        expect(error.code == "model_not_found", f"{error.body}")
        expect([entry.id for entry in stranger.models.list()] == [], "a stranger sees models")
        check.figure = error.body["message"]
    with report.check("no valid token: AuthenticationError") as check:
        for bad in ("nonsense", served.token[:-4] + "AAAA"):
            error = raised(openai.AuthenticationError, lambda: served.sdk(token=bad).models.list())
        expect(error.code == "invalid_api_key", f"{error.body}")
        check.figure = error.body["message"]
    with report.check("vLLM's own refusal reaches the client: BadRequestError") as check:
        error = raised(openai.BadRequestError, lambda: sdk.chat.completions.create(
            model=model, messages=hello(), max_tokens=10**6))
        check.figure = str(error.body.get("message"))[:80]


def models(report, served, names):
    """What the token may use."""
    with report.check("models.list names both models, with their status") as check:
        listed = {entry.id: entry for entry in served.sdk().models.list()}
        expect(set(names) <= set(listed), f"listed: {sorted(listed)}")
        status = {name: getattr(listed[name], "status", None) for name in names}
        expect(all(status.values()), f"status {status}")
        retrieved = served.sdk().models.retrieve(names[0])
        expect(retrieved.id == names[0], f"{retrieved}")
        check.figure = str(status)


def _streams(served, count):
    """Long streams that have begun. No more of them is read: they last until they are closed."""
    streams = [
        served.sdk().chat.completions.create(
            model=served.model, messages=hello(), max_tokens=served.tokens_max, stream=True, extra_body=GO_ON)
        for _ in range(count)
    ]
    for stream in streams:
        next(iter(stream))
    return streams


def limit(report, served, places):
    """All places taken: 429 at once; a retry obeys the pause that we ask for."""
    streams = []
    with report.check(f"{places} places taken: RateLimitError with Retry-After, at once") as check:
        streams += _streams(served, places)
        began = time.monotonic()
        error = raised(openai.RateLimitError, lambda: served.sdk().chat.completions.create(
            model=served.model, messages=hello(), max_tokens=1))
        took, headers = time.monotonic() - began, error.response.headers
        expect(error.code == "concurrency_limit_exceeded", f"{error.body}")
        expect(0 < float(headers["retry-after"]) <= 60, f"{headers}")
        check.figure = f"after {took * 1000:.0f} ms, retry-after {headers['retry-after']} s"
    with report.check("a retrying client waits as long as it was asked, and gets its answer") as check:
        seen = openai_client.Exchanges()
        sdk = served.sdk(retries=5, exchanges=seen)
        made = []
        thread = threading.Thread(daemon=True, target=lambda: made.append(sdk.chat.completions.create(
            model=served.model, messages=hello(), max_tokens=1)))
        thread.start()
        wait_for("the first 429", lambda: 429 in seen.statuses, 30, pause=0.01)
        for stream in streams:
            stream.close()
        thread.join(60)
        expect(made, f"no answer; statuses {seen.statuses}")
        pause, asked = seen.pause_before_retry(), seen.asked_pause()
        expect(asked <= pause <= asked + 2, f"waited {pause:.2f} s, asked for {asked:.2f} s")
        check.figure = f"statuses {seen.statuses}, waited {pause:.2f} s of {asked:.2f} s"


def abort(report, served):
    """A client that leaves is seen in vLLM's own figures, and its place is free."""
    worker = served.worker()
    with report.check("a client that leaves mid-stream: vLLM stops its request") as check:
        worker.wait_running(0, 10)
        (stream,) = _streams(served, 1)
        worker.wait_running(1, 10)
        stream.close()
        took = worker.wait_running(0, 1)
        check.figure = f"num_requests_running 0 after {took * 1000:.0f} ms"
    with report.check("a client that leaves before the first byte: vLLM stops its request") as check:
        impatient = served.sdk(timeout=0.5)
        raised(openai.APITimeoutError, lambda: impatient.chat.completions.create(
            model=served.model, messages=hello(), max_tokens=served.tokens_max, extra_body=GO_ON))
        took = worker.wait_running(0, 1)
        check.figure = f"num_requests_running 0 after {took * 1000:.0f} ms"
    with report.check("an aborted stream has left no place taken") as check:
        def in_flight():
            return served.gateway.metrics().sum("tidegate_in_flight_requests")

        wait_for("no request in flight", lambda: in_flight() == 0, 2)
        gone = served.gateway.metrics().sum("tidegate_requests_total", outcome="client_gone")
        expect(gone >= 2, f"client_gone counted {gone} times")
        check.figure = f"client_gone {int(gone)}"
