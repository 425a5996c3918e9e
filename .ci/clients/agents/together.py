"""Every agent through every try, many at once: most of the time is waiting."""

from concurrent.futures import ThreadPoolExecutor

from checks.report import expect, skip, wait_for
from checks.tidegate import Tidegate
from clients.agents import kinds, models, tries

#: Agents that run at once: each takes seconds of CPU time to start.
AT_ONCE = 8

#: In the order in which they begin.
_TRIES = [tries.cold, tries.cut, tries.full, tries.interrupted, tries.expired, tries.failed]


def _cases(agents, wanted):
    cases = [(one, agent) for one in _TRIES for agent in agents
             if not wanted or wanted & {one.__name__, agent.name}]
    # Its tries take longer than all others.
    return sorted(cases, key=lambda case: case != (tries.cut, kinds.OPENCODE))


def _expired(gateway):
    made = gateway.token("--workspace", "w1", "--project", "research", "--ttl", "1s")
    wait_for("it has expired", lambda: gateway.get("/v1/models", made)[0] == 401, 30, pause=0.2)  # ten seconds of leeway
    return made


def _fail(gateway, agents):
    """Has the models that can't start fail for good."""
    names = [f"failing-{agent.name}" for agent in agents]
    for name in names:
        gateway.run("start", name, check=False)
    for name in names:
        gateway.wait_status(f"{name}/{name}", "failed", 30)


def run(report, wanted=frozenset()):
    """All checks of all agents."""
    agents, missing = models.all_agents()
    for name in missing:
        skip(f"clients: {name} is not installed, so nothing was tried with it; `.ci/run` installs it")
    if not agents:
        return
    with Tidegate(models.SETTINGS) as gateway:
        for name, text in models.routes(agents).items():
            gateway.route(name, text)
        gateway.start("--stop-workers")
        token = gateway.token("--workspace", "w1", "--project", "research")
        expired = _expired(gateway)
        _fail(gateway, agents)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            cases = [(one, agent, pool.submit(one, gateway, agent, expired if one is tries.expired else token))
                     for one, agent in _cases(agents, set(wanted))]
            for one, agent, future in cases:
                with report.check(f"{agent.name}: {one.__doc__.rstrip('.')}") as check:
                    check.figure = future.result()
        code = gateway.stop()
        with report.check("agents: SIGTERM ends the gateway that they used, exit code 0"):
            expect(code == 0, f"exit code {code}")
