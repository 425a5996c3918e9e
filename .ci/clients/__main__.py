"""python3 -m clients: every client against the stand-in engine."""

import sys

from checks.report import Report, exit_on_sigterm
from checks.tidegate import Tidegate
from clients import (
    anthropic_python,
    first_run,
    langchain_python,
    llm_cli,
    openai_node,
    openai_python,
    stand_in,
)


def main():
    """Serves the models and lets the clients at them."""
    exit_on_sigterm()
    report = Report("clients")
    first_run.run(report)
    with Tidegate(stand_in.SETTINGS) as gateway:
        for name, text in stand_in.ROUTES.items():
            gateway.route(name, text)
        gateway.start()
        token = gateway.token("--workspace", "w1", "--project", "research")
        for client in (openai_python, anthropic_python, langchain_python, llm_cli, openai_node):
            with report.check(f"{client.__name__} could be driven to its end"):
                client.run(report, gateway, token)
        with report.check("SIGTERM with --stop-workers' effect: `stop` and SIGTERM leave nothing") as check:
            check.figure = _leave(gateway)
    return report.finish()


def _leave(gateway):
    for name in stand_in.ROUTES:
        gateway.run("stop", name)
    code = gateway.stop()
    if code != 0:
        raise AssertionError(f"exit code {code}")
    return "exit code 0"


sys.exit(main())
