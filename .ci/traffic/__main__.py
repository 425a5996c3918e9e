"""python3 -m traffic: h2load, the openai SDK and plain HTTP against limits, queues and servers that die."""

import os
import sys
from contextlib import ExitStack

from checks.report import Report, exit_on_sigterm
from checks.tidegate import Tidegate
from traffic import files, flapping, limits, overload, servers
from traffic.engines import Engine


def main():
    """Runs everything on one gateway."""
    exit_on_sigterm()
    report = Report("traffic")
    settings = f'[gpus]\nsource = "none"\n{limits.SETTINGS}'
    with Tidegate(settings) as gateway, ExitStack() as stack:
        engines = [Engine({**os.environ, **gateway.environment}) for _ in range(3)]
        for engine in engines:
            stack.callback(engine.kill)
        for name, text in [*limits.routes(engines[0]), *servers.routes(engines), *flapping.routes()]:
            gateway.route(name, f'[route]\nname = "{name}"\n{text}')
        gateway.start()
        limits.run(report, gateway)
        servers.run(report, gateway, engines)
        flapping.run(report, gateway)
        files.run(report, gateway, engines[0])
    overload.run(report, {})
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
