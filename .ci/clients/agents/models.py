"""What is served to agents: models of the stand-in, one for each try that another would disturb."""

from clients.agents import kinds, tries

#: A start that fails is not tried again: the model has failed for good.
SETTINGS = '[gpus]\nsource = "none"\n[workers]\nfailures_max = 1\nbackoff = "10ms"\n'

_SPEED = 'first_token = "5ms"\n'


def _route(name, sim, deployment=""):
    return (f'[route]\nname = "{name}"\nproject = "research"\n[instance]\nname = "{name}"\nproject = "research"\n'
            f'engine = "sim"\n[[deployment]]\nmodel = "tidegate/{name}"\nendpoint_name = "{name}"\n{deployment}'
            f"[deployment.sim]\n{_SPEED}{sim}\n")


def routes(agents):
    """Name to text of every route file."""
    found = {
        "plain": _route("plain", 'load = "0s"\ntokens_per_second = 500'),
        "cut": _route("cut", 'load = "0s"\ntokens_per_second = 500\nfaults = ["cut-mid-stream:5"]'),
    }
    for agent in agents:
        for kind, sim, more in (
            ("cold", f'load = "{tries.COLD}s"\ntokens_per_second = 500', ""),
            # Two places are opencode's own: it asks for a title as well.
            ("narrow", 'load = "0s"\ntokens_per_second = 20', "max_concurrent_requests = 1\n"),
            ("slow", 'load = "0s"\ntokens_per_second = 1', ""),
            ("failing", 'load = "0s"\ntokens_per_second = 500\nfaults = ["crash-at-start"]', ""),
        ):
            name = f"{kind}-{agent.name}"
            found[name] = _route(name, sim, more)
    return found


def all_agents():
    """Those that are installed, and the names of those that are not."""
    present = [agent for agent in kinds.ALL if agent.is_installed()]
    return present, [agent.name for agent in kinds.ALL if not agent.is_installed()]
