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


def exact(report, served, shape, streams=24, seed=11):
    """One stream after the other is left in the middle, through a route that wants exact accounting."""
    with report.check(f"{served.model}: {streams} streams that are left in the middle are booked as vLLM counts them") as check:
        gateway = served.gateway
        _written(gateway, shape(usage="exact"))
        dice, sdk, off = random.Random(seed), served.sdk(), []
        for _ in range(streams):
            before, ours_before = served.worker().tokens(), served.counted()
            _left(sdk, served.model, dice)
            served.worker().wait_running(0, 30)

            def differences():
                ours = [now - then for now, then in zip(served.counted(), ours_before)]
                theirs = [now - then for now, then in zip(served.worker().tokens(), before)]
                return ours[0] and (int(ours[0] - theirs[0]), int(ours[1] - theirs[1]), int(theirs[1]))

            off.append(wait_for("it is booked", differences, 10))
        prompts, answers = [each[0] for each in off], [each[1] for each in off]
        check.figure = (f"of {sum(each[2] for each in off)} tokens of answers {sum(answers)} off, at most {-min(answers)} of one; "
                        f"of prompts {sum(prompts)}")
        expect(not any(prompts), f"prompts: {prompts}")
        # What vLLM makes before it hears of the end is seen by nobody: seldom more than a token,
        # but once 63 of them. Never is more booked than it made.
        expect(max(answers) <= 0 and sum(each < -1 for each in answers) <= streams // 8, f"answers: {answers}")
        _written(gateway, shape())


def _written(gateway, text):
    """Writes the route file and waits until it is in effect."""
    def reloads():
        return gateway.log().count("routes are in effect")

    before = reloads()
    gateway.route("tiny", text)
    wait_for("the file is in effect", lambda: reloads() > before, 20)


def _left(sdk, model, dice):
    """A chat or a completion whose client leaves after some events."""
    words, ask = "word " * dice.randint(1, 40), {"model": model, "max_tokens": 200, "stream": True, "extra_body": GO_ON}
    if dice.random() < 0.5:
        answer = sdk.chat.completions.create(messages=hello(words), **ask)
    else:
        answer = sdk.completions.create(prompt=words, **ask)
    events = dice.randint(3, 60)
    for count, _ in enumerate(answer, start=1):
        if count == events:
            answer.close()
            return


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
