"""A mixed load, aborts included: what Tidegate has counted against vLLM's own counters."""

import random
import threading

import openai

from checks.openai_client import hello
from checks.report import expect, wait_for
from real_vllm.data_plane import GO_ON

#: Requests of the mixed load, and how many clients send them.
REQUESTS, CLIENTS = 48, 4
#: Tokens that an aborted request may have made unseen: a few steps, until vLLM hears of it.
UNSEEN = 8


def mixed_load(report, served, seed=7):
    """Chat, completions and responses, streaming and not; a third of the streams is given up."""
    with report.check(f"{served.model}: a mixed load with aborts is counted as vLLM counts it") as check:
        before, ours_before = served.worker().tokens(), served.counted()
        dice, lock, aborted = random.Random(seed), threading.Lock(), []

        def client():
            sdk = served.sdk()
            while True:
                with lock:
                    if not plan:
                        return
                    kind, words, tokens, gives_up = plan.pop()
                if _one(sdk, served.model, kind, words, tokens, gives_up):
                    with lock:
                        aborted.append(kind)

        plan = [
            (dice.choice(["chat", "chat stream", "chat stream", "completions", "completions stream", "responses stream"]),
             "word " * dice.randint(1, 40), dice.randint(4, 40), dice.random() < 0.33)
            for _ in range(REQUESTS)
        ]
        threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        expect(not plan, f"{len(plan)} requests were not sent in time")
        served.worker().wait_running(0, 30)

        def counts():
            ours = tuple(int(now - then) for now, then in zip(served.counted(), ours_before))
            theirs = tuple(int(now - then) for now, then in zip(served.worker().tokens(), before))
            check.figure = (f"{REQUESTS} requests, {len(aborted)} given up: "
                            f"Tidegate {ours}, vLLM {theirs} (prompt, completion)")
            return abs(ours[1] - theirs[1]) <= UNSEEN * len(aborted) and _prompts_fit(ours[0], theirs[0], len(aborted))

        wait_for("equal counts", counts, 10)


def _prompts_fit(ours, theirs, aborted):
    # The prompt of a request that was given up is estimated from those that were not.
    return abs(ours - theirs) <= aborted * 12 + 1


def _one(sdk, model, kind, words, tokens, gives_up):
    """Sends one request; whether it was given up."""
    streams = kind.endswith("stream")
    if kind.startswith("chat"):
        answer = sdk.chat.completions.create(
            model=model, messages=hello(words), max_tokens=tokens, stream=streams, extra_body=GO_ON)
    elif kind.startswith("completions"):
        answer = sdk.completions.create(
            model=model, prompt=words, max_tokens=tokens, stream=streams, extra_body=GO_ON)
    else:
        answer = sdk.responses.create(model=model, input=words, max_output_tokens=tokens, stream=streams)
    if not streams:
        return False
    count = 0
    for _ in answer:
        count += 1
        if gives_up and count > 5:
            answer.close()
            return True
    return False
