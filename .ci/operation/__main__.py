"""python3 -m operation: traces, certificates, balancers, restarts, floods and units, with peers that no one here wrote."""

import os
import secrets
import sys

from checks import processes
from checks.report import Report, exit_on_sigterm
from operation import edge, hostile, life, memory, printed, surroundings, traces, variables
from traffic.engines import Engine


def main():
    """Runs everything against one stand-in engine."""
    exit_on_sigterm()
    report = Report("operation")
    mark = os.environ.get(processes.MARK_VARIABLE, "") + secrets.token_hex(8)
    engine = Engine({**os.environ, processes.MARK_VARIABLE: mark})
    try:
        wanted = set(sys.argv[1:])
        parts = {
            "traces": traces, "edge": edge, "life": life, "hostile": hostile, "memory": memory,
            "surroundings": surroundings, "printed": printed, "variables": variables,
        }
        for name, part in parts.items():
            if not wanted or name in wanted:
                part.run(report, engine)
    finally:
        engine.kill()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
