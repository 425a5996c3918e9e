"""python3 -m vllm_options: exits 0 when all passed, or when there is no recipe for vLLM here."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from checks import processes
from checks.openai_client import client, hello
from checks.report import Report, exit_on_sigterm, expect, skip
from checks.tidegate import Tidegate, binary
from real_vllm import engine
from vllm_options import sinks, wheel

VERSION = "0.32.0"
CONTEXT = 16384
#: Most seconds for a worker to start on two busy cores, its install included.
START_MAX = 300

#: Options that this vLLM takes on a CPU, as a route file writes them; adapters come on top.
OPTIONS = {
    "dtype": '"float32"', "max_model_len": '"2k"', "max_num_seqs": "4", "max_num_batched_tokens": "2048",
    "enforce_eager": "true", "enable_prefix_caching": "true", "enable_chunked_prefill": "true", "seed": "7",
    "max_logprobs": "5", "tokenizer_mode": '"auto"', "load_format": '"safetensors"', "model_impl": '"vllm"',
    "kv_cache_dtype": '"auto"', "scheduling_policy": '"priority"', "enable_prompt_tokens_details": "true",
    "return_tokens_as_token_ids": "true", "enable_auto_tool_choice": "true", "tool_call_parser": '"hermes"',
    "uvicorn_log_level": '"warning"', "disable_log_requests": "true",
    "model_overrides": "{ disable_fastapi_docs = true, enable_request_id_headers = true }",
    "enable_lora": "true", "max_loras": "1", "max_lora_rank": "8", "max_cpu_loras": "4",
}


def route(model, adapter, more=""):
    """The route file."""
    lines = "\n".join(f"{name} = {value}" for name, value in OPTIONS.items())
    return f"""
[route]
name = "many"
project = "research"
[route.timeouts]
cold_start = "{START_MAX}s"

[instance]
name = "many"
project = "research"
vllm_version = "{VERSION}"

[[deployment]]
model = "{model}"
endpoint_name = "many"
[deployment.options]
{lines}
lora_modules = ["tale={adapter}"]
{more}
"""


def settings(wheels):
    """tidegate.toml: no GPU, no vLLM found, versions installed from a directory alone."""
    arguments = json.dumps(["--no-index", "--find-links", str(wheels)])
    # Operators may write raw arguments, so that each key in them is judged.
    return (f'[gpus]\nsource = "none"\n[engines.vllm]\ncommand = "/no/vllm/here"\npip_arguments = {arguments}\n'
            f'[engines.vllm.allowed]\nraw = true\ndirectories = {json.dumps([str(engine.cache())])}\n')


def verdicts(report, programs):
    """Every option with legal and wrong values: our verdict and that of the real parser."""
    with report.check("every option: our verdict is that of vLLM's own parser") as check:
        cases = subprocess.run(
            [binary(), "options", "--format", "cases"], capture_output=True, check=True, timeout=60).stdout
        judge = Path(__file__).with_name("parser.py")
        done = subprocess.run(
            [programs / "python", judge], input=cases, capture_output=True, check=False, timeout=240)
        said = done.stdout.decode().strip()
        expect(done.returncode == 0, f"{said[-3000:]}\n{done.stderr.decode()[-500:]}")
        check.figure = said.splitlines()[-1]


def refused(report, gateway, good):
    """What the version lacks is told with its line, and what was read before stays."""
    with report.check("an option that the version lacks is refused when the file is read"):
        gateway.route("many", good + "num_scheduler_steps = 4\n")
        said = gateway.run("check", check=False)
        line = len((good + "num_scheduler_steps").splitlines())
        for part in (f"many.toml:{line}: deployment.options.num_scheduler_steps", "gone by 0.11.0"):
            expect(part in said.stdout, f"{part!r} is not in {said.stdout}")
        expect(said.returncode == 1, f"exit code {said.returncode}")
        gateway.route("many", good)
        expect(gateway.run("check").returncode == 0, "the good file is refused")


def starts(report, gateway, token):
    """A worker with all of them starts and answers, under the adapter's name as well."""
    name = f"an instance with {len(OPTIONS) + 1} options of a version that is installed first answers"
    with report.check(name) as check:
        sdk = client(gateway, token, timeout=START_MAX)
        answered = sdk.chat.completions.with_raw_response.create(
            model="many", messages=hello(), max_tokens=4, logprobs=True, top_logprobs=2)
        reply = answered.parse()
        expect(reply.usage.completion_tokens > 0, f"{reply}")
        expect(reply.choices[0].logprobs.content[0].token.startswith("token_id:"), f"{reply.choices[0].logprobs}")
        held = int(answered.headers["x-tidegate-cold-start-ms"]) / 1000
        console = gateway.run("logs", "many", "--tail", "2000").stdout
        expect(f"installing vllm=={VERSION}" in console and "is ready after" in console, console[:2000])
        check.figure = f"held {held:.1f} s"
    with report.check("the adapter answers under its own name and is listed"):
        reply = sdk.chat.completions.create(model="tale", messages=hello(), max_tokens=4)
        expect(reply.model == "tale" and reply.usage.completion_tokens > 0, f"{reply}")
        expect({model.id for model in sdk.models.list()} == {"many", "tale"}, f"{list(sdk.models.list())}")
    with report.check("tidegate args prints what runs"):
        printed = gateway.run("args", "routes.d/many.toml").stdout
        words = next(shlex.split(line) for line in printed.splitlines() if " serve " in line)
        words = words[words.index("serve"):]
        ran = processes.arguments(gateway.deployment("many/many")["pid"])
        ran = ran[ran.index("serve"):]
        socket = words.index("--uds") + 1
        words[socket] = ran[socket]
        expect(words == ran, f"{words}\nand not\n{ran}")
        expect("***" not in printed, printed)


def main():
    """Asks the parser, installs, serves, checks."""
    exit_on_sigterm()
    if not engine.is_possible():
        skip("REAL vLLM's options: there is no ../shared/vllm/cpu here, so nothing was tried against it")
        return 0
    report = Report("options of vLLM")
    programs = engine.install()
    verdicts(report, programs)
    model, adapter = engine.model(programs, 0, CONTEXT), engine.adapter(programs)
    good = route(model, adapter)
    with Tidegate("", {"VLLM_CPU_KVCACHE_SPACE": "1"}) as gateway:
        wheels = gateway.directory / "wheels"
        wheel.build(wheels, VERSION, programs)
        with (gateway.directory / "tidegate.toml").open("a", encoding="utf-8") as file:
            file.write(settings(wheels))
        gateway.route("many", good)
        gateway.start()
        token = gateway.token("--workspace", "w1", "--project", "research")
        refused(report, gateway, good)
        sinks.run(report, gateway, next((programs.parent / "lib").glob("python3*/site-packages/vllm")), model)
        starts(report, gateway, token)
        if report.failed:
            print(gateway.run("logs", "many", "--tail", "60", check=False).stdout, gateway.log()[-3000:])
    return report.finish()


sys.exit(main())
