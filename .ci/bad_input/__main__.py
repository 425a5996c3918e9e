"""python3 -m bad_input: a certificate's half, a port in use, a directory that can't be written, …"""

import os
import shutil
import socket
import subprocess
import sys

import openai

from bad_input import disk
from checks import openai_client, processes
from checks.openai_client import hello, raised
from checks.report import Report, exit_on_sigterm, expect
from checks.tidegate import Tidegate, binary, free_port

INSTANCE = """
[instance]
name = "lab"
project = "research"
engine = "vllm"
[[deployment]]
model = "{model}"
endpoint_name = "lab"
"""


def refused(report, name, words, prepare, gateway_settings=""):
    """`serve` must end with 1 and one sentence that has these words."""
    with report.check(name) as check, Tidegate(gateway_settings=gateway_settings) as gateway:
        undo = prepare(gateway)
        try:
            done = subprocess.run(
                [binary(), "serve"], cwd=gateway.directory, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=20, check=False,
                env={**os.environ, processes.MARK_VARIABLE: gateway.mark})
        finally:
            if undo:
                undo()
        told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        check.figure = " / ".join(line.strip() for line in told)
        expect(done.returncode == 1, f"exit code {done.returncode}: {done.stdout[-300:]}")
        expect(told and told[0].startswith("tidegate: "), f"{done.stderr[-500:]}")
        expect(all(line.strip().startswith("because: ") for line in told[1:]), "more than one sentence")
        for word in words:
            expect(word in told[0], f"{word!r} is not in the sentence")
        expect("panicked" not in done.stderr, "it panicked")
        expect(not processes.marked(gateway.mark), "a process is left")


def _missing_half(half):
    def prepare(gateway):
        gateway.start()
        gateway.stop()
        (gateway.directory / "certs" / half).unlink()

    return prepare


def _taken_port(gateway):
    taken = socket.create_server(("127.0.0.1", gateway.port))
    return taken.close


def _taken_metrics_port(gateway):
    taken = socket.create_server(("127.0.0.1", gateway.metrics_port))
    return taken.close


def _broken_certificate(gateway):
    gateway.start()
    gateway.stop()
    (gateway.directory / "certs" / "server.pem").write_text("nonsense", encoding="utf-8")


def _second(gateway):
    gateway.start()
    first = gateway.directory / "tidegate.toml"
    ports = (gateway.port, gateway.metrics_port, gateway.admin_port)
    text = first.read_text(encoding="utf-8")
    for port in ports:
        text = text.replace(str(port), str(free_port()))
    first.write_text(text, encoding="utf-8")
    return gateway.kill


def starts(report):
    """What keeps `serve` from starting."""
    refused(report, "the certificate's key is missing", ["server.key"], _missing_half("server.key"))
    refused(report, "the certificate is missing", ["server.pem"], _missing_half("server.pem"))
    refused(report, "the certificate is nonsense", ["server.pem"], _broken_certificate)
    refused(report, "the port is in use", ["gateway.listen"], _taken_port)
    refused(report, "the metrics port is in use", ["metrics.listen"], _taken_metrics_port)
    refused(report, "the state directory can't be made", ["/proc/tidegate", "gateway.state"],
            lambda gateway: None, gateway_settings='state = "/proc/tidegate"\n')
    refused(report, "a second gateway in the same directory", [".tidegate"], _second)
    refused(report, "an unknown key", ["lisen", "listen"], lambda gateway: None,
            gateway_settings='lisen = ["127.0.0.1:1"]\n')


def failed(report, name, words, model, environment=None, settings=""):
    """The deployment must fail at once, with a sentence in `tidegate ps`."""
    with report.check(name) as check, Tidegate(settings, environment) as gateway:
        gateway.route("lab", INSTANCE.format(model=model.format(directory=gateway.directory)))
        gateway.start()
        token = gateway.token("--workspace", "w1", "--project", "research")
        error = raised(openai.APIStatusError, lambda: openai_client.client(
            gateway, token, timeout=30).chat.completions.create(model="lab", messages=hello()))
        expect(error.status_code == 400 and error.code == "model_failed", f"{error.status_code} {error.body}")
        for word in (str(gateway.directory), *words):
            expect(word not in str(error), f"{word} is told to the client: {error}")
        shown = gateway.wait_status("lab/lab", "failed", 10)
        check.figure = shown["reason"]
        for word in words:
            expect(word in (shown["reason"] or ""), f"{word!r} is not in {shown['reason']!r}")
        expect(shown["reason"] in gateway.run("ps").stdout, "`tidegate ps` does not say it")
        mine = {gateway.process.pid}
        expect(set(processes.marked(gateway.mark)) == mine, "a process is left")


def deployments(report):
    """What keeps a worker from starting."""
    no_gpu = '[gpus]\nsource = "none"\n'
    empty = {"PATH": "/nonexistent"}
    failed(report, "no vllm on PATH", ["vllm", "PATH"], "{directory}", empty, no_gpu)
    failed(report, "the vllm that is configured is not there", ["engines.vllm"], "{directory}",
           settings=no_gpu + '[engines.vllm]\ncommand = "/nonexistent/vllm"\n')
    runnable = shutil.which("true")
    failed(report, "a model path that is not there", ["/nonexistent/model", "deployment.model"],
           "/nonexistent/model", settings=no_gpu + f'[engines.vllm]\ncommand = "{runnable}"\n')


def main():
    """Tries them all."""
    exit_on_sigterm()
    report = Report("bad input")
    starts(report)
    deployments(report)
    disk.full(report)
    return report.finish()


sys.exit(main())
