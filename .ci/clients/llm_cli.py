"""The `llm` command, with Tidegate as an OpenAI-compatible server in its configuration."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks.report import expect
from clients.stand_in import PLAIN


def run(report, gateway, token):
    """All checks of this client."""
    with tempfile.TemporaryDirectory(prefix="tg-llm-") as directory:
        models = f"- model_id: tidegate\n  model_name: {PLAIN}\n  api_base: {gateway.url}/v1\n  api_key_name: tidegate\n"
        Path(directory, "extra-openai-models.yaml").write_text(models, encoding="utf-8")
        environment = {**os.environ, "LLM_USER_PATH": directory, "SSL_CERT_FILE": str(gateway.ca)}

        def llm(*words):
            program = Path(sys.executable).parent / "llm"
            return subprocess.run(
                [program, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=120, check=False)

        with report.check("llm: a prompt, streaming and not") as check:
            llm("keys", "set", "tidegate", "--value", token)
            streamed = llm("prompt", "-m", "tidegate", "Hello!")
            whole = llm("prompt", "-m", "tidegate", "--no-stream", "Hello!")
            for done in (streamed, whole):
                expect(done.returncode == 0 and done.stdout.strip(), f"{done.returncode}: {done.stderr[-300:]}")
            expect(streamed.stdout == whole.stdout, f"{streamed.stdout!r}, {whole.stdout!r}")
            check.figure = whole.stdout.strip()[:60]
        with report.check("llm: a bad key is told in our words") as check:
            done = llm("prompt", "-m", "tidegate", "--key", "bad", "Hello!")
            expect(done.returncode != 0 and "not valid here" in done.stderr, f"{done.returncode}: {done.stderr[-300:]}")
            check.figure = done.stderr.strip().splitlines()[-1][:100]
