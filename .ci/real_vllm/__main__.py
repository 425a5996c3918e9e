"""python3 -m real_vllm: exits 0 when all passed, or when there is no recipe for vLLM here."""

import json
import sys
import time

from checks.report import Report, exit_on_sigterm, skip
from checks.tidegate import Tidegate
from real_vllm import data_plane, endpoints, engine, lifecycle, usage, voices
from real_vllm.served import Served
from real_vllm.voices import Voices

#: Requests at once of the second model.
PLACES = 2
#: Longest context of the models, and so about the longest answer: a minute or more.
CONTEXT = 16384


def settings(programs):
    """tidegate.toml: no GPU, vLLM from the installation, quick to retry."""
    command = json.dumps(str(programs / "vllm"))
    return f'[gpus]\nsource = "none"\n[engines.vllm]\ncommand = {command}\n[workers]\nbackoff = "200ms"\n'


def shape_of(models):
    """The route file, with idle times to be filled in."""
    def shape(offload_after="30m", time_limit="4h", usage="at_end"):
        text = f"""
[route]
name = "tiny"
project = "research"
[route.timeouts]
cold_start = "{lifecycle.START_MAX}s"
[route.stream]
usage = "{usage}"

[instance]
name = "tiny"
project = "research"
[instance.idle]
offload_after = "{offload_after}"
time_limit = "{time_limit}"
[instance.options]
automatic_cpu_offloading = true
# vLLM's kernels for bfloat16 end with an illegal instruction on some processors that have AMX.
dtype = "float32"
max_model_len = {CONTEXT}
enforce_eager = true
"""
        for name, path in models.items():
            text += f'[[deployment]]\nmodel = "{path}"\nendpoint_name = "{name}"\n'
            text += f"max_concurrent_requests = {PLACES}\n" if name == "beta" else ""
        return text

    return shape


def embedding_file(path):
    """The route file of an embedding model."""
    return f"""
[route]
name = "bert"
project = "research"
[route.timeouts]
cold_start = "{lifecycle.START_MAX}s"

[instance]
name = "bert"
project = "research"
[instance.options]
dtype = "float32"
enforce_eager = true

[[deployment]]
model = "{path}"
endpoint_name = "gamma"
"""


def run(report, gateway, shape, embedder):
    """The checks, in an order that needs each worker started twice only."""
    gateway.route("tiny", shape())
    gateway.route("bert", embedding_file(embedder))
    gateway.start()
    token = gateway.token("--workspace", "w1", "--project", "research")
    alpha, beta = (
        Served(gateway, token, name, f"tiny/{name}", CONTEXT - 100) for name in ("alpha", "beta")
    )
    both = [alpha, beta]
    data_plane.models(report, alpha, ["alpha", "beta"])
    texts = lifecycle.cold_start(report, "requests to a stopped model are held and answered", both, 2)
    if len(texts) < 2:
        report.note("no worker: the rest can't be tried; the console and the log say")
        print(gateway.run("logs", "tiny", "--tail", "60", check=False).stdout, gateway.log()[-3000:])
        report.fail("real vLLM serves", "not started")
        return
    lifecycle.one_worker(report, alpha)
    for served in both:
        data_plane.answers(report, served)
    endpoints.listed(report, alpha, CONTEXT, "chat", "completions")
    endpoints.of_text(report, alpha)
    data_plane.stored(report, alpha)
    usage.mixed_load(report, alpha)
    usage.exact(report, alpha, shape)
    data_plane.refusals(report, alpha)
    data_plane.limit(report, beta, PLACES)
    data_plane.abort(report, alpha)
    lifecycle.offload_and_wake(report, alpha, shape, texts["alpha"])
    lifecycle.killed_gateway(report, both, texts)
    lifecycle.killed_server(report, beta, texts["beta"])
    lifecycle.idle_stop(report, alpha, shape)
    lifecycle.cold_start(report, "cold start again, after a stop", [alpha], 1)
    gamma = Served(gateway, token, "gamma", "bert/gamma", CONTEXT)
    with report.check("gamma: an embedding model is started by its first request") as check:
        made = gamma.sdk(timeout=lifecycle.START_MAX).embeddings.create(model="gamma", input="one")
        check.figure = f"{len(made.data[0].embedding)} numbers"
    # vLLM alone knows how long its context is.
    endpoints.listed(report, gamma, 512, "embeddings", "rerank", "score")
    endpoints.of_embeddings(report, gamma)
    # Beta was idle for as long as alpha, and may have been stopped with it.
    lifecycle.end(report, gateway, [alpha, gamma])


def run_voices(report, gateway, heard):
    """Sound and classes, which take two cores minutes to load."""
    gateway.route("voices", voices.file(heard))
    gateway.start()
    token = gateway.token("--workspace", "w1", "--project", "research")
    more = Voices(gateway, token)
    more.run(report)
    lifecycle.end(report, gateway, more.all())


def main():
    """Installs, serves, checks; with `voices` as its argument, sound and classes instead."""
    exit_on_sigterm()
    if not engine.is_possible():
        skip("REAL vLLM: there is no ../shared/vllm/cpu here, so nothing was tried against it")
        return 0
    report, began = Report("real vLLM"), time.monotonic()
    programs = engine.install()
    report.note(f"vLLM is installed [{time.monotonic() - began:.0f} s]")
    if sys.argv[1:] == ["voices"]:
        with Tidegate(settings(programs), {"VLLM_CPU_KVCACHE_SPACE": "1"}) as gateway:
            run_voices(report, gateway, engine.voices(programs))
        return report.finish()
    models = {name: engine.model(programs, seed, CONTEXT) for seed, name in enumerate(["alpha", "beta"])}
    report.note(f"models are made [{time.monotonic() - began:.0f} s]")
    shape = shape_of(models)
    with Tidegate(settings(programs), {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_RESPONSES_API_STORE": "1"}) as gateway:
        run(report, gateway, shape, engine.embedder(programs))
    return report.finish()


sys.exit(main())
