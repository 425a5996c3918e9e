"""The openai SDK for Node, run as a script of its own."""

import json
import os
import subprocess
from pathlib import Path

from checks.report import expect
from clients.stand_in import TOOL

SCRIPT = Path(__file__).with_name("openai_node.mjs")


def run(report, gateway, token):
    """All checks of this client."""
    modules = os.environ.get("TIDEGATE_CI_NODE")
    if not modules:
        report.fail("openai-node", "TIDEGATE_CI_NODE does not say where the SDK is; see .ci/run")
        return
    environment = {
        **os.environ, "NODE_EXTRA_CA_CERTS": str(gateway.ca), "TIDEGATE_NODE_MODULES": modules,
        "TIDEGATE_URL": gateway.url, "TIDEGATE_TOKEN": token, "TIDEGATE_TOOL": json.dumps(TOOL),
    }
    done = subprocess.run(
        ["node", SCRIPT], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=180, check=False)
    for line in done.stdout.splitlines():
        result = json.loads(line)
        with report.check(f"openai-node: {result['name']}") as check:
            check.figure = f"{result['figure']} ({result['seconds']:.1f} s)"
            expect(result["ok"], result["figure"])
    if done.returncode != 0:
        report.fail("openai-node ends in order", done.stderr[-600:])
