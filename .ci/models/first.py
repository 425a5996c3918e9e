"""Models that the gateway fetches before it asks for GPUs, with a stand-in for the engine.

The engine is a venv of its own that has the library of the hub and says it is vLLM; its
command refuses to start unless the library finds the model whole without a network.
"""

import json
import ssl
import threading
import urllib.error
import urllib.request
import venv
from pathlib import Path

from checks import processes
from checks.report import expect, wait_for
from checks.tidegate import binary
from models.hub import tiny

MIB = 1 << 20
#: A device on which one worker fits at a time: each takes nine tenths of it.
SETTINGS = '[gpus]\nsource = "simulated"\n[[gpus.simulated]]\nmemory = "24GiB"\n[engines.vllm]\ncommand = "{command}"\n[placement]\nwait_bound = "1s"\n[workers]\nfailures_max = 1\n'
COMMAND = """#!{python}
import os, sys
words = sys.argv[1:]
if {looks!r}:
    import huggingface_hub
    huggingface_hub.snapshot_download(words[1], allow_patterns=["*.safetensors", "*.json"], local_files_only=True)
def said(flag):
    return words[words.index(flag) + 1]
os.execv({tidegate!r}, [{tidegate!r}, "sim", words[1], "--uds", said("--uds"), "--served-model-name", said("--served-model-name"), "--load", "200ms"])
"""


def engine(directory, library):
    """A venv that says it is vLLM 0.32.0; `library` is a Python whose packages it has, if any."""
    venv.create(directory, with_pip=False, symlinks=True)
    packages = next(directory.glob("lib/python*/site-packages"))
    about = packages / "vllm-0.32.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    if library:
        others = next(Path(library).parents[1].glob("lib/python*/site-packages"))
        (packages / "library.pth").write_text(f"{others}\n")
    command = directory / "bin" / "vllm"
    command.write_text(COMMAND.format(python=directory / "bin" / "python", looks=bool(library), tidegate=str(binary())))
    command.chmod(0o755)
    return command


def route(machine, name, model):
    """A route with one deployment of a model."""
    machine.route(name, f'[route]\nname = "{name}"\nproject = "ci"\n[route.stream]\nopen_after = "4s"\n[instance]\nname = "{name}"\nproject = "ci"\nengine = "vllm"\n'
                        f'[[deployment]]\nmodel = "{model}"\nendpoint_name = "{name}"\n')


class Asked(threading.Thread):
    """A request under way: status and body once it ended."""

    def __init__(self, machine, name, token, stream=False):
        super().__init__(daemon=True)
        self.machine, self.name_, self.token, self.stream = machine, name, token, stream
        self.status, self.body, self.again_in = None, None, None
        self.start()

    def run(self):
        body = json.dumps({"model": self.name_, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2, "stream": self.stream}).encode()
        request = urllib.request.Request(f"{self.machine.url}/v1/chat/completions", data=body, headers={
            "authorization": f"Bearer {self.token}", "content-type": "application/json"})
        context = ssl.create_default_context(cafile=self.machine.ca)
        try:
            with urllib.request.urlopen(request, timeout=120, context=context) as response:
                self.status, self.body = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            self.again_in = error.headers["retry-after"]
            self.status, self.body = error.code, error.read().decode()
        except OSError as error:
            self.body = str(error)

    def answered(self, seconds=60):
        """Status and body, once they are there."""
        self.join(seconds)
        expect(self.status is not None, f"no answer: {self.body}")
        return self.status, self.body


def fetching(machine):
    """The processes that fetch for a gateway."""
    return [pid for pid in processes.marked(machine.mark) if "huggingface_hub" in " ".join(processes.arguments(pid))]


def fetches_first(report, hub, make, library):
    """`make` starts a machine with settings; `library` is the Python that fetches."""
    size = 64 * MIB
    hub.models |= {"acme/resident": tiny(2 * MIB, 40), "acme/cold": tiny(size, 41), "acme/killed": tiny(size, 42),
                   "acme/away": tiny(2 * MIB, 43), "acme/gone": tiny(size, 44), "acme/other": tiny(size, 45)}
    with make(SETTINGS) as machine:
        command = engine(machine.directory / "engine", library)
        settings = machine.directory / "tidegate.toml"
        settings.write_text(settings.read_text().replace("{command}", str(command)))
        for name in ("resident", "cold", "killed", "away", "gone", "other"):
            route(machine, name, f"acme/{name}")
        route(machine, "twin", "acme/cold")
        route(machine, "none", "acme/none")
        machine.start()
        token = machine.token("--workspace", "ci", "--project", "ci")
        with report.check("a small model is fetched and served"):
            status, body = Asked(machine, "resident", token).answered()
            expect(status == 200, body)
        with report.check("while a model is fetched, no GPU is held or asked for, and nobody leaves") as check:
            hub.forget()
            hub.bytes_per_second = 8 * MIB
            asked = Asked(machine, "cold", token, stream=True)
            shown = {}

            def half():
                shown.update(machine.deployment("cold/cold"))
                return shown["fetch"] and shown["fetch"]["bytes_done"] > size // 2

            wait_for("half of it", half, 30, pause=0.1)
            expect(shown["phase"] == "fetching" and shown["status"] == "loading" and not shown["gpus"], shown)
            expect(shown["fetch"]["bytes_per_second"] and shown["ready_in_seconds"], shown)
            expect("fetches" in machine.run("ps").stdout, machine.run("ps").stdout)
            resident = machine.deployment("resident/resident")
            expect(resident["status"] in ("idle", "active") and resident["gpus"], resident)
            check.figure = f"{shown['progress']}, ready in {shown['ready_in_seconds']} s"
        with report.check("one download serves all who name the model, and the request is answered"):
            twin = Asked(machine, "twin", token)
            wait_for("the twin fetches", lambda: machine.deployment("twin/twin")["phase"] == "fetching", 20, pause=0.1)
            hub.bytes_per_second = None
            status, body = asked.answered()
            expect(status == 200 and "data: [DONE]" in body, body)
            told = [line for line in body.splitlines() if line.startswith(": loading, ")]
            expect(told and " of 64.0MiB, " in told[-1] and told[-1].endswith(" left"), body)
            expect(hub.bytes_sent("model.safetensors") == size, hub.bytes_sent("model.safetensors"))
            status, body = twin.answered()
            expect(status == 200, body)
            expect(hub.bytes_sent("model.safetensors") == size, hub.bytes_sent("model.safetensors"))
        with report.check("a model that the hub does not have is refused in words, and takes no GPU"):
            status, body = Asked(machine, "none", token).answered()
            expect(status == 400 and "model_failed" in body, f"{status} {body}")
            shown = machine.deployment("none/none")
            expect("the hub has no model acme/none" in (shown["reason"] or ""), shown)
        with report.check("while the hub fails requests are told when to come, and the next one is served") as check:
            hub.fault("/api/models/acme/away", "503!")
            asked = Asked(machine, "away", token)
            status, body = asked.answered()
            expect(status == 503 and "model_loading" in body and int(asked.again_in) > 0, f"{status} {body} {asked.again_in}")
            shown = machine.deployment("away/away")
            expect("the hub fails again and again" in (shown["reason"] or ""), shown)
            check.figure = f"Retry-After {asked.again_in}"
            hub.forget()
            status, body = Asked(machine, "away", token).answered()
            expect(status == 200, body)
        with report.check("what another process fetches is waited for, with its progress, and read once"):
            hub.forget()
            hub.bytes_per_second = 8 * MIB
            pulling = machine.pulling("acme/other")
            wait_for("a part of it", lambda: hub.bytes_sent("model.safetensors") > MIB, 30)
            asked = Asked(machine, "other", token)
            wait_for("its progress", lambda: (machine.deployment("other/other")["fetch"] or {}).get("bytes_done"), 20, pause=0.1)
            hub.bytes_per_second = None
            said = pulling.communicate(timeout=60)
            status, body = asked.answered()
            expect(pulling.returncode == 0 and status == 200, f"{said} {status} {body}")
            expect(hub.bytes_sent("model.safetensors") == size, hub.bytes_sent("model.safetensors"))
        with report.check("a fetch ends with the file that names its model"):
            hub.forget()
            hub.bytes_per_second = 8 * MIB
            asked = Asked(machine, "gone", token)
            wait_for("a part of it", lambda: hub.bytes_sent("model.safetensors") > size // 8, 30)
            pids = fetching(machine)
            # Who gives up rights gives up to get others by a program.
            walled = ["NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text() for pid in pids]
            expect(pids and all(walled), f"{pids} {walled}")
            (machine.directory / "routes.d" / "gone.toml").unlink()
            status, body = asked.answered()
            expect(status >= 400, f"{status} {body}")
            wait_for("its Python has ended", lambda: not fetching(machine), 10)
            expect(hub.bytes_sent("model.safetensors") < size, "it went on")
            hub.bytes_per_second = None
        with report.check("after SIGKILL of the gateway only what is missing is read") as check:
            hub.forget()
            hub.bytes_per_second = 16 * MIB
            Asked(machine, "killed", token)
            wait_for("half of it", lambda: hub.bytes_sent("model.safetensors") > size // 2, 30)
            machine.kill()
            hub.bytes_per_second = None
            part = wait_for("a part", lambda: machine.parts("acme/killed"), 5)[0]
            before = -1
            while before != part.stat().st_size:
                before = part.stat().st_size
                threading.Event().wait(0.7)
            hub.forget()
            machine.start()
            status, body = Asked(machine, "killed", token).answered()
            expect(status == 200, body)
            read = hub.bytes_sent("model.safetensors")
            expect(read == size - before, f"{read} of {size}, {before} were there")
            check.figure = f"{before} of {size} bytes were there, {read} were read"
    with make(SETTINGS) as machine, report.check("an engine without the library fetches by itself, as ever"):
        command = engine(machine.directory / "engine", None)
        settings = machine.directory / "tidegate.toml"
        settings.write_text(settings.read_text().replace("{command}", str(command)))
        route(machine, "cold", "acme/cold")
        machine.start()
        status, body = Asked(machine, "cold", machine.token("--workspace", "ci", "--project", "ci")).answered()
        expect(status == 200, body)
        expect("no huggingface_hub" in machine.run("logs", "cold", "--tail", "200").stdout, machine.run("logs", "cold").stdout[-500:])
    with make('disk_budget = "1MiB"\n' + SETTINGS) as machine, report.check("a model beyond the budget is refused with the sum before a byte of it comes"):
        command = engine(machine.directory / "engine", library)
        settings = machine.directory / "tidegate.toml"
        settings.write_text(settings.read_text().replace("{command}", str(command)))
        route(machine, "cold", "acme/cold")
        hub.forget()
        machine.start()
        status, body = Asked(machine, "cold", machine.token("--workspace", "ci", "--project", "ci")).answered()
        expect(status == 400 and "model_failed" in body, f"{status} {body}")
        shown = machine.deployment("cold/cold")
        expect("[models] disk_budget is 1MiB" in (shown["reason"] or ""), shown)
        expect(hub.bytes_sent("model.safetensors") == 0, hub.bytes_sent("model.safetensors"))
