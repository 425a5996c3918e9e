"""Real vLLM for a CPU and tiny models for it, kept between runs outside the repository."""

import os
import shutil
import subprocess
from pathlib import Path

from checks.tidegate import REPOSITORY

#: The recipe, beside the repository; absent in most checkouts. TIDEGATE_CI_RECIPE names another.
RECIPE = Path(os.environ.get("TIDEGATE_CI_RECIPE", REPOSITORY.parent / "shared" / "vllm" / "cpu"))


def cache():
    """Where installations are kept; TIDEGATE_CI_CACHE names another place."""
    default = Path.home() / ".cache" / "tidegate-ci"
    return Path(os.environ.get("TIDEGATE_CI_CACHE", default)).resolve()


def is_possible():
    """Whether the recipe is there."""
    return (RECIPE / "install.sh").is_file()


def install():
    """The directory of vLLM's programs; installed unless that was done before."""
    directory = cache() / "vllm"
    done = cache() / "vllm.installed"
    if not done.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _run(["bash", RECIPE / "install.sh", directory], 900)
        shutil.rmtree(directory / "uvcache", ignore_errors=True)
        done.touch()
    return directory / "venv" / "bin"


def model(programs, seed, context):
    """A tiny model with random weights from this seed, for a context of so many tokens."""
    directory = cache() / "models" / f"llama-{context}-{seed}"
    if not (directory / "tokenizer.json").exists():
        maker = RECIPE / "make_tiny_model.py"
        _run([programs / "python", maker, directory, "--seed", str(seed), "--max-len", str(context)], 300)
    return directory


def embedder(programs):
    """A tiny embedding model with random weights."""
    directory = cache() / "models" / "bert"
    if not (directory / "tokenizer.json").exists():
        maker = RECIPE / "make_tiny_model.py"
        _run([programs / "python", maker, directory, "--kind", "bert"], 300)
    return directory


def adapter(programs):
    """A tiny LoRA adapter for these models."""
    directory = cache() / "models" / "adapter"
    if not (directory / "adapter_config.json").exists():
        maker = RECIPE / "make_tiny_model.py"
        _run([programs / "python", maker, directory, "--kind", "lora"], 300)
    return directory


def voices(programs):
    """A tiny model that hears and one that sorts, by name; with what vLLM reads sound with."""
    if not list(programs.parent.glob("lib/python*/site-packages/soundfile.py")):
        _run([programs.parent.parent / "uvenv" / "bin" / "uv", "pip", "install", "-q", "-p", programs / "python",
              "--no-deps", "soundfile==0.14.0"], 120)
    made = {}
    for name, kind in {"delta": "speech", "epsilon": "classifier"}.items():
        made[name] = cache() / "models" / f"tiny-{kind}"
        if not (made[name] / "generation_config.json").exists():
            _run([programs / "python", Path(__file__).with_name("tiny.py"), made[name], kind], 120)
    return made


def _run(command, seconds):
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}")
