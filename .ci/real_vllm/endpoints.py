"""The endpoints beside chat, completions and responses, on a text model and on an embedding model."""

import json
import ssl

import anthropic

from checks.openai_client import hello
from checks.report import expect, wait_for
from real_vllm.counts import alike


def _counts(served):
    """What Tidegate and vLLM have counted: prompt and completion tokens of each."""
    return served.counted(), served.worker().tokens()


def _counted_alike(report, served, before, told):
    with report.check(f"{served.model}: these endpoints are counted as they told") as check:
        def counts():
            ours, theirs = (
                tuple(int(now - then) for now, then in zip(*pair)) for pair in zip(_counts(served), before))
            check.figure = f"told {told}, Tidegate {ours}, vLLM {theirs} (prompt, completion)"
            return alike(told, ours, theirs)

        wait_for("equal counts", counts, 5)


def listed(report, served, length, *capabilities):
    """What lists of models say of it: its worker told, or its options."""
    with report.check(f"{served.model}: the list of models says what it does, and how long its context is") as check:
        def entry():
            check.figure = json.loads(served.gateway.get(f"/v1/models/{served.model}", served.token)[1])
            said = check.figure.get("capabilities"), check.figure.get("context_length"), check.figure["state"]["value"]
            return said == (list(capabilities), length, "loaded")

        wait_for("it says so", entry, 10)
        check.figure = f"{', '.join(capabilities)}; {length} tokens"


def of_text(report, served):
    """Anthropic's SDK, and the tokenizer."""
    model, before, told = served.model, _counts(served), [0, 0]
    same = {"model": model, "max_tokens": 20, "messages": hello(), "extra_body": {"temperature": 0}}
    transport = anthropic.DefaultHttpxClient(
        verify=ssl.create_default_context(cafile=served.gateway.ca), trust_env=False)
    sdk = anthropic.Anthropic(
        base_url=served.gateway.url, api_key=served.token, max_retries=0, http_client=transport)

    def add(usage):
        told[0] += usage.input_tokens
        told[1] += usage.output_tokens

    with report.check(f"{model}: messages, both ways, by Anthropic's SDK") as check:
        whole = sdk.messages.create(**same)
        add(whole.usage)
        with sdk.messages.stream(**same) as stream:
            text, final = "".join(stream.text_stream), stream.get_final_message()
        add(final.usage)
        expect(text == whole.content[0].text, f"{text!r}, {whole.content[0].text!r}")
        check.figure = f"{whole.usage.input_tokens}+{whole.usage.output_tokens} tokens"
    with report.check(f"{model}: count_tokens says what a message costs") as check:
        counted = sdk.messages.count_tokens(model=model, messages=hello()).input_tokens
        expect(counted == whole.usage.input_tokens, f"{counted}, {whole.usage}")
        check.figure = f"{counted} tokens"
    with report.check(f"{model}: tokenize and detokenize") as check:
        ask = served.sdk().post
        tokens = ask("/tokenize", body={"model": model, "prompt": "Hello there"}, cast_to=object)
        back = ask("/detokenize", body={"model": model, "tokens": tokens["tokens"]}, cast_to=object)
        expect("Hello there" in back["prompt"], f"{back}")
        check.figure = f"{tokens['count']} tokens"
    _counted_alike(report, served, before, told)


def of_embeddings(report, served):
    """What a model that embeds serves."""
    sdk, model, before, told = served.sdk(), served.model, _counts(served), [0, 0]

    def ask(path, **body):
        answer = sdk.post(path, body={"model": model, **body}, cast_to=object)
        told[0] += answer["usage"]["prompt_tokens"]
        return answer

    with report.check(f"{model}: embeddings") as check:
        made = sdk.embeddings.create(model=model, input=["one", "another one"])
        told[0] += made.usage.prompt_tokens
        check.figure = f"{len(made.data)} of {len(made.data[0].embedding)} numbers, {made.usage.prompt_tokens} tokens"
        expect(len(made.data) == 2, f"{made.data}")
    with report.check(f"{model}: score, rerank (Jina's and Cohere's), pooling") as check:
        scores = ask("/score", text_1="a fox", text_2=["a fox", "a gateway"])
        expect(scores["data"][0]["score"] > scores["data"][1]["score"], f"{scores['data']}")
        documents = ["a gateway", "a fox"]
        for version in ("/rerank", f"{served.gateway.url}/v2/rerank"):
            ranked = ask(version, query="a fox", documents=documents)
            expect(ranked["results"][0]["index"] == 1, f"{ranked['results']}")
        pooled = ask("/pooling", input="a fox")
        expect(pooled["data"], f"{pooled}")
        check.figure = f"{scores['data'][0]['score']:.4f} > {scores['data'][1]['score']:.4f}"
    _counted_alike(report, served, before, told)
