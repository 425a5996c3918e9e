"""python3 -m models: models are fetched, resumed, listed and removed, against a stand-in hub."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checks.report import Report, exit_on_sigterm, expect, wait_for
from checks.tidegate import Tidegate
from models.first import fetches_first
from models.hub import Content, Hub, Model, safetensors, tiny

MIB = 1 << 20
#: Pythons that have the library of the hub: its newest version, then older ones.
PYTHONS = [python for python in os.environ.get("TIDEGATE_CI_HUB", "").split(":") if python]


class Machine(Tidegate):
    """A Tidegate that fetches from a hub into a cache of its own."""

    #: The Python whose library fetches.
    python = None

    def __init__(self, hub, settings="", environment=None):
        self.cache = Path(tempfile.mkdtemp(prefix="hf-"))
        settings = f'[models]\npython = "{self.python}"\n{settings}'
        super().__init__(settings, environment={
            "HF_HOME": str(self.cache), "HF_ENDPOINT": hub.url, "HF_TOKEN": "", **(environment or {})})

    def end(self):
        super().end()
        shutil.rmtree(self.cache, ignore_errors=True)

    def folder(self, name):
        """The directory of a model in the cache."""
        return self.cache / "hub" / f"models--{name.replace('/', '--')}"

    def models(self):
        """What `tidegate models` tells, by name."""
        return {model["model"]: model for model in json.loads(self.run("models", "--json").stdout)}

    def refused(self, *arguments):
        """The sentence of a command that fails."""
        done = self.run(*arguments, check=False)
        expect(done.returncode == 1, f"exit code {done.returncode}: {done.stdout}{done.stderr}")
        lines = [line for line in done.stderr.splitlines() if line.startswith("tidegate: ")]
        expect(len(lines) == 1, f"{done.stderr!r}")
        return lines[0].removeprefix("tidegate: ")

    def pulling(self, name):
        """A fetch under way."""
        return subprocess.Popen([self.binary, "pull", name], cwd=self.directory, env=self.environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def parts(self, name):
        """The parts of files that are there of a model."""
        return list((self.folder(name) / "blobs").glob("*.incomplete"))


def snapshot_of(library, name, environment):
    """What the library itself says of a model that it may not fetch: its directory."""
    program = f"import huggingface_hub as h; print(h.snapshot_download({name!r}, allow_patterns=['*.safetensors', '*.json'], local_files_only=True))"
    done = subprocess.run([library, "-c", program], env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr[-400:])
    return done.stdout.strip()


def whole(report, hub):
    """A model comes whole, where engines look for it, and only what they read."""
    hub.models["acme/tiny"] = tiny(4 * MIB, revisions=["v1", "refs/pr/2"])
    with Machine(hub) as machine:
        with report.check("a model is fetched to where the hub's own library finds it without a network") as check:
            said = machine.run("pull", "acme/tiny").stdout
            where = snapshot_of(Machine.python, "acme/tiny", machine.environment)
            expect(where in said, f"{said} {where}")
            names = sorted(path.name for path in Path(where).rglob("*"))
            expect(names == ["README.md", "config.json", "model.safetensors", "tokenizer.json"], names)
            check.figure = f"{hub.bytes_sent()} bytes"
        with report.check("what is whole is not read again"):
            hub.forget()
            machine.run("pull", "acme/tiny")
            expect(hub.bytes_sent() == 0, hub.bytes_sent())
        with report.check("without the network it is refused in a sentence"):
            said = machine.run("pull", "acme/tiny", check=False)
            offline = dict(machine.environment)
            machine.environment["HF_HUB_OFFLINE"] = "1"
            said = machine.refused("pull", "acme/tiny")
            machine.environment = offline
            expect(said.startswith("HF_HUB_OFFLINE is set"), said)
        with report.check("a branch, a tag and a commit name the same files"):
            for revision in ("v1", "refs/pr/2", hub.models["acme/tiny"].commit):
                machine.run("pull", "acme/tiny", "--revision", revision)
            expect(hub.bytes_sent() == 0, hub.bytes_sent())
            shown = machine.models()["acme/tiny"]
            expect(sorted(shown["revisions"]) == ["main", "refs/pr/2", "v1"], shown)
        with report.check("the token goes to the hub, and not to where the large files are"):
            hub.models["acme/gated"] = tiny(2 * MIB, 7, gated=True)
            said = machine.refused("pull", "acme/gated")
            expect("is gated" in said and "HF_TOKEN" in said, said)
            hub.forget()
            machine.environment["HF_TOKEN"] = "hf_right"
            machine.run("pull", "acme/gated")
            leaked = [path for _, path, headers in hub.requests if path.startswith("/large/") and "authorization" in {key.lower() for key in headers}]
            expect(not leaked, leaked)


def killed(report, hub):
    """SIGKILL in the middle; two at once; the disk that fills."""
    size = 64 * MIB
    hub.models["acme/large"] = tiny(size, 2)
    with Machine(hub) as machine:
        with report.check("after SIGKILL in the middle only what is missing is read") as check:
            hub.forget()
            hub.bytes_per_second = 16 * MIB
            pulling = machine.pulling("acme/large")
            wait_for("half of it", lambda: hub.bytes_sent("model.safetensors") > size // 2, 30)
            pulling.send_signal(signal.SIGKILL)
            pulling.wait(10)
            # The Python that fetched ends with it.
            parts = machine.parts("acme/large")
            wait_for("a part that grows no more", lambda: still(parts), 10)
            there = parts[0].stat().st_size
            shown = machine.models()["acme/large"]
            expect(shown["state"] == "part" and shown["bytes_whole"] > shown["bytes"] >= there, shown)
            hub.forget()
            hub.bytes_per_second = None
            machine.run("pull", "acme/large")
            again = hub.bytes_sent("model.safetensors")
            expect(again == size - there, f"{again} of {size}, {there} were there")
            expect(machine.models()["acme/large"]["state"] == "whole", "it is not whole")
            check.figure = f"{there} of {size} bytes were there, {again} were read"
        with report.check("two at once read it once"):
            hub.models["acme/two"] = tiny(8 * MIB, 3)
            hub.forget()
            hub.bytes_per_second = 4 * MIB
            both = [machine.pulling("acme/two") for _ in range(2)]
            said = [process.communicate(timeout=60) for process in both]
            hub.bytes_per_second = None
            expect([process.returncode for process in both] == [0, 0], said)
            expect(any("another fetch" in stderr for _, stderr in said), said)
            expect(hub.bytes_sent("model.safetensors") == 8 * MIB, hub.bytes_sent("model.safetensors"))
    with report.check("two at once do not exceed the budget together"), Machine(hub, 'disk_budget = "20MiB"\n') as machine:
        for name in ("acme/one", "acme/other"):
            hub.models[name] = tiny(12 * MIB, len(name))
        hub.forget()
        hub.bytes_per_second = 4 * MIB
        both = [machine.pulling(name) for name in ("acme/one", "acme/other")]
        said = [process.communicate(timeout=60) for process in both]
        hub.bytes_per_second = None
        expect(sorted(process.returncode for process in both) == [0, 1], said)
        expect(any("[models] disk_budget is 20MiB" in stderr for _, stderr in said), said)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    for settings, words in (
        (f'disk_free_min = "{free - 32 * MIB}B"\n', "would be left, and [models] disk_free_min keeps"),
        ('disk_budget = "40MiB"\ndisk_free_min = "0B"\n', "together 64.0MiB, and [models] disk_budget is 40MiB"),
    ):
        with report.check(f"what would fill the disk is refused before it begins: {settings.split()[0]}"):
            hub.forget()
            with Machine(hub, settings) as machine:
                said = machine.refused("pull", "acme/large")
                expect(words in said, said)
                expect(hub.bytes_sent() == 0, hub.bytes_sent())


def still(paths):
    """Whether files are as large as they were a moment ago."""
    before = [path.stat().st_size for path in paths]
    time.sleep(0.7)
    return before == [path.stat().st_size for path in paths]


def faults(report, hub):
    """What a hub can answer that is not the model."""
    for number, (where, given, words) in enumerate((
        ("GET /api/", ["429", "503"], None),
        ("HEAD /acme", ["500", "429"], None),
        ("GET /large/", ["cut", "half", "429"], None),
        ("GET /large/", ["cut", "no-range"], None),
        ("GET /large/", ["other"], "came damaged"),
        ("GET /large/", ["more!"], "not as large as the hub says"),
        ("GET /api/", ["html"], "is not the hub"),
        ("GET /api/", ["429!"], "too many requests (429)"),
        ("GET /large/", ["500!"], "fails again and again"),
        ("GET /large/", ["403!"], "refuses this login"),
    )):
        name = f"acme/fault-{number}"
        hub.models[name] = tiny(3 * MIB, 10 + number)
        with Machine(hub) as machine, report.check(f"{where} answers {', '.join(given)}: {words or 'it comes all the same'}") as check:
            hub.forget()
            hub.fault(where, *given)
            if words is None:
                said = machine.run("pull", name)
                expect(not machine.parts(name), machine.parts(name))
                return_words = said.stderr
            else:
                return_words = machine.refused("pull", name)
                expect(words in return_words, return_words)
                expect(not (machine.folder(name) / "refs" / "main").exists(), "the library would take it for whole")
                hub.forget()
                machine.run("pull", name)
            snapshot = Path(snapshot_of(Machine.python, name, machine.environment))
            expect((snapshot / "model.safetensors").read_bytes() == safetensors(3 * MIB, 10 + number), "other bytes")
            check.figure = return_words.strip().splitlines()[-1][:90] if return_words.strip() else ""


def bad_models(report, hub):
    """Models that are none, and names that are none."""
    files = tiny(2 * MIB).files
    hub.models |= {
        "acme/climbs": Model({**files, "../../../x.json": Content(b"x")}),
        "acme/absolute": Model({**files, "/etc/x.json": Content(b"x")}),
        "acme/lies": Model({**files, "model.safetensors": Content(safetensors(2 * MIB, 5), large=True, states={"size": 2 * MIB - 100})}),
        "acme/other": Model({**files, "model.safetensors": Content(safetensors(2 * MIB, 6), large=True, states={"sha256": "0" * 64})}),
        "acme/onnx": Model({"config.json": Content(b"{}"), "model.onnx": Content(b"x")}),
    }
    with Machine(hub) as machine:
        for arguments, words in (
            (["acme/climbs"], "would lead out of its directory"),
            (["acme/absolute"], "would lead out of its directory"),
            (["acme/lies"], "not as large as the hub says"),
            (["acme/other"], "came damaged"),
            (["acme/onnx"], "no weights that an engine loads"),
            (["acme/none"], "the hub has no model acme/none"),
            (["acme/lies", "--revision", "v9"], "has no revision \"v9\""),
            (["acme/lies", "--revision", "../x"], "is no revision"),
            (["s3://bucket/model"], "are not fetched from \"s3://\""),
            (["mlflow:model/3"], "are not fetched from \"mlflow:\""),
            (["a/b/c"], "is no name of a model"),
            (["/nowhere"], "it is not there"),
        ):
            with report.check(f"pull {' '.join(arguments)}: {words}"):
                said = machine.refused("pull", *arguments)
                expect(words in said, said)
                expect(not list(machine.cache.rglob("x.json")) and not machine.parts(arguments[0]), "something was left")
        with report.check("a port where no one listens is a sentence"):
            machine.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
            said = machine.refused("pull", "acme/none")
            expect("can't be reached" in said and "HF_ENDPOINT" in said, said)
        with report.check("a Python without the library is a sentence"):
            settings = machine.directory / "tidegate.toml"
            settings.write_text(settings.read_text().replace(Machine.python, shutil.which("python3")))
            said = machine.refused("pull", "acme/none")
            expect("no huggingface_hub" in said, said)


def kept(report, hub):
    """What is listed, removed and left alone."""
    hub.models["acme/ours"] = tiny(2 * MIB, 20)
    hub.models["acme/theirs"] = tiny(2 * MIB, 21)
    with Machine(hub) as machine:
        download = "import huggingface_hub as h; h.snapshot_download('acme/theirs')"
        subprocess.run([Machine.python, "-c", download], env=machine.environment, capture_output=True, check=True)
        machine.run("pull", "acme/ours")
        directory = machine.directory / "here"
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        (directory / "model.safetensors").write_bytes(safetensors(MIB))
        for name, model in {"a": "acme/ours", "b": "acme/absent", "c": str(directory)}.items():
            machine.route(name, f'[route]\nname = "{name}"\n[instance]\nname = "{name}"\nengine = "vllm"\n[[deployment]]\nmodel = "{model}"\nendpoint_name = "{name}"\n')
        with report.check("models are listed with who brought them and who names them"):
            shown = machine.models()
            seen = {name: (model["state"], model["fetched_by_tidegate"], model["deployments"]) for name, model in shown.items()}
            expect(seen == {
                "acme/ours": ("whole", True, ["a/a"]), "acme/theirs": ("whole", False, []),
                "acme/absent": ("absent", False, ["b/b"]), str(directory): ("whole", False, ["c/c"]),
            }, seen)
            expect("acme/theirs" in machine.run("models").stdout, "no table")
        with report.check("a directory is looked at"):
            machine.run("pull", str(directory))
            with (directory / "model.safetensors").open("r+b") as file:
                file.truncate(MIB - 10)
            said = machine.refused("pull", str(directory))
            expect("by its head should have" in said, said)
        with report.check("what others fetched is left alone, by all commands"):
            before = sorted(path for path in machine.folder("acme/theirs").rglob("*"))
            said = machine.refused("models", "remove", "acme/theirs")
            expect("was not fetched by tidegate" in said, said)
            machine.run("pull", "acme/theirs")
            machine.refused("models", "remove", "acme/theirs")
            machine.run("models", "prune", "--older-than", "0s")
            expect(sorted(machine.folder("acme/theirs").rglob("*")) == before, "it changed")
        with report.check("what a deployment names is kept, until it is forced"):
            said = machine.refused("models", "remove", "acme/ours")
            expect("a/a names acme/ours" in said, said)
            expect("0 models" in machine.run("models", "prune", "--older-than", "0s").stdout, "it was pruned")
        with report.check("prune tells, and then removes"):
            (machine.directory / "routes.d" / "a.toml").unlink()
            expect("0 models" in machine.run("models", "prune").stdout, "it is not old")
            said = machine.run("models", "prune", "--older-than", "0s", "--dry-run").stdout
            expect("would remove acme/ours" in said and machine.folder("acme/ours").exists(), said)
            said = machine.run("models", "prune", "--older-than", "0s").stdout
            expect("removed acme/ours" in said and not machine.folder("acme/ours").exists(), said)
        with report.check("a link whose content is gone is told, and mended by a fetch"):
            machine.run("pull", "acme/ours")
            for blob in (machine.folder("acme/ours") / "blobs").iterdir():
                if blob.stat().st_size > MIB:
                    blob.unlink()
            expect(machine.models()["acme/ours"]["state"] == "part", "it is told as whole")
            machine.run("pull", "acme/ours")
            expect(machine.models()["acme/ours"]["state"] == "whole", "it is not whole")
        with report.check("a content of another length that others left is told, and left"):
            blob = next(path for path in (machine.folder("acme/theirs") / "blobs").iterdir() if path.stat().st_size > MIB)
            blob.write_bytes(b"cut")
            said = machine.refused("pull", "acme/theirs")
            expect("is broken, and nothing that we made" in said and blob.read_bytes() == b"cut", said)


def first(report, hub):
    """The gateway fetches before it asks for GPUs."""
    fetches_first(report, hub, lambda settings: Machine(hub, settings), Machine.python)


def _cost(run):
    """Seconds of the clock and of the processor that a program takes, with all that it starts."""
    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    began, before = time.monotonic(), used()
    run()
    return time.monotonic() - began, used() - before


def rate(report, hub):
    """At the cost of the library itself and of the checksum, in seconds of the processor: the clock is for whoever else works."""
    size = 512 * MIB
    with tempfile.TemporaryDirectory() as directory, report.check("a fetch costs what the library's own and a checksum do") as check:
        source = Path(directory) / "weights"
        with source.open("wb") as file:
            piece = safetensors(64 * MIB)
            for _ in range(size // len(piece)):
                file.write(piece)
        hub.models["acme/fast"] = Model({"config.json": Content(b"{}"), "model.safetensors": Content(path=source)})

        def python(text, *arguments, **more):
            subprocess.run([Machine.python, "-c", text, *arguments], capture_output=True, check=True, **more)

        download = "import huggingface_hub as h; h.snapshot_download('acme/fast')"
        digest = "import hashlib, sys; [hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')]"
        own, theirs, checksum = [], [], []
        for _ in range(3):
            with Machine(hub) as machine:
                own.append(_cost(lambda: machine.run("pull", "acme/fast")))
            with Machine(hub) as machine:
                theirs.append(_cost(lambda: python(download, env=machine.environment)))
            checksum.append(_cost(lambda: python(digest, str(source))))
        (clock, used), (their_clock, their_used), (_, sum_used) = ([min(of) for of in zip(*all)] for all in (own, theirs, checksum))
        check.figure = (f"{used:.2f} s of the processor, theirs {their_used:.2f}, a checksum {sum_used:.2f}; "
                        f"{size / clock / 1e6:.0f} MB/s, theirs {size / their_clock / 1e6:.0f}, ratio {their_clock / clock:.2f}")
        expect(used <= 1.5 * (their_used + sum_used), check.figure)


def form(report, hub):
    """What form a model has is read by ranges, and nothing of it is fetched."""
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000,
              "max_position_embeddings": 512, "torch_dtype": "bfloat16"}
    size = 64 * MIB
    model = tiny(size, 9)
    model.files["config.json"] = Content(json.dumps(config).encode())
    hub.models["acme/form"] = model
    with Machine(hub) as machine:
        # Beside those in effect, as the file of another instance of this name would be refused.
        route = machine.directory / "form.toml"
        route.write_text('[instance]\nname = "form"\nproject = "p"\n[[deployment]]\nmodel = "acme/form"\nendpoint_name = "form"\n')
        with report.check("what a model will need is told by its head, without a fetch") as check:
            hub.forget()
            said = machine.run("args", str(route)).stdout
            expect("needs about 63.9MiB of weights on each of 1 GPU" in said, said)
            expect(not machine.folder("acme/form").exists(), "something of it is in the cache")
            # What is under way when it has seen enough is sent in vain.
            expect(hub.bytes_sent() < size // 2, hub.bytes_sent())
            check.figure = f"{hub.bytes_sent()} bytes of {size}"
        with report.check("a head that lies is told in a sentence"):
            model.files["model.safetensors"] = Content(safetensors(4 * MIB) + b"more", large=True)
            said = machine.run("args", str(route)).stdout
            expect("no estimate of its GPU memory" in said and "by its head" in said, said)
        with report.check("a model that is gated says so"):
            hub.models["acme/form"] = tiny(2 * MIB, 7, gated=True)
            said = machine.run("args", str(route)).stdout
            expect("no estimate of its GPU memory" in said and "is gated" in said, said)


def main():
    """Runs the parts that are named, or all; with older libraries what rests on their insides."""
    exit_on_sigterm()
    report = Report("models")
    if not PYTHONS:
        report.fail("a Python with huggingface_hub", "TIDEGATE_CI_HUB names none")
        return report.finish()
    wanted = set(sys.argv[1:])
    for python in PYTHONS:
        Machine.python = python
        version = [python, "-c", "import huggingface_hub as h; print(h.__version__)"]
        print("huggingface_hub", subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip())
        parts = (whole, killed, faults, bad_models, kept, form, first, rate) if python == PYTHONS[0] else (whole, killed, kept, form, first)
        with Hub() as hub:
            for part in parts:
                if not wanted or part.__name__ in wanted:
                    part(report, hub)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
