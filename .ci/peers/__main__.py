"""python3 -m peers: what others make of the same bytes: nginx and HAProxy of requests, two WebSocket libraries of frames."""

import sys

from checks.report import Report, exit_on_sigterm
from peers import differential, sockets


def main():
    """Runs the parts that are named, or all."""
    exit_on_sigterm()
    report = Report("peers")
    wanted = set(sys.argv[1:])
    for name, part in {"differential": differential, "sockets": sockets}.items():
        if not wanted or name in wanted:
            part.run(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
