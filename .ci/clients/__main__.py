"""python3 -m clients [agents [NAME…]]: every client against the stand-in engine, or the agents alone."""

import sys

from checks import processes
from checks.report import Report, exit_on_sigterm, expect
from checks.tidegate import Tidegate
from clients import (
    anthropic_python,
    first_run,
    langchain_python,
    llm_cli,
    openai_endpoints,
    openai_node,
    openai_python,
    settings,
    stand_in,
)
from clients.agents import together
from clients.engines import Engines


def main():
    """Serves the models and lets the clients at them."""
    exit_on_sigterm()
    report = Report("clients")
    if sys.argv[1:2] == ["agents"]:
        together.run(report, sys.argv[2:])
        return report.finish()
    first_run.run(report)
    with Tidegate(stand_in.SETTINGS) as gateway, Engines(gateway.environment) as engines:
        for name, text in [*stand_in.ROUTES.items(), *engines.routes.items()]:
            gateway.route(name, text)
        gateway.start("--stop-workers")
        token = gateway.token("--workspace", "w1", "--project", "research")
        for client in (openai_python, openai_endpoints, anthropic_python, langchain_python, llm_cli, openai_node, settings):
            with report.check(f"{client.__name__} could be driven to its end"):
                client.run(report, gateway, token)
        engines.end()
        with report.check("serve --stop-workers: SIGTERM ends the workers too, exit code 0") as check:
            check.figure = _leave(gateway)
    together.run(report)
    return report.finish()


def _leave(gateway):
    before = len(processes.marked(gateway.mark))
    code = gateway.stop()
    left = [processes.arguments(pid) for pid in processes.marked(gateway.mark)]
    expect(code == 0 and not left, f"exit code {code}, left: {left}")
    return f"{before} processes before, none after"


sys.exit(main())
