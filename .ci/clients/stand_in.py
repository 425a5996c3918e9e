"""What is served to the clients: models of the stand-in engine, each with its own manners."""

#: Fast, and like vLLM.
PLAIN = "plain"
#: One place only, and slow.
NARROW = "narrow"
#: Takes seconds to load, behind a route that waits for a moment only.
COLD = "cold"
#: Another one, for the client that comes later.
COLD_NODE = "cold-node"
#: And another one.
COLD_ANTHROPIC = "cold-anthropic"
#: Can be told over its socket what to do wrong.
BROKEN = "broken"
#: Its streams break off.
CUT = "cut"

_IMPATIENT = '[route.timeouts]\ncold_start = "300ms"\n'
_SPEED = 'wake = "10ms"\nsleep = "10ms"\nfirst_token = "5ms"\n'


def _instance(name, sim, deployment="", route="", instance=""):
    return f"""
[route]
name = "{name}"
project = "research"
{route}
[instance]
name = "{name}"
project = "research"
engine = "sim"
{instance}[[deployment]]
model = "tidegate/{name}"
endpoint_name = "{name}"
{deployment}
[deployment.sim]
{_SPEED}{sim}
"""


#: Name to text of every route file.
ROUTES = {
    PLAIN: _instance(PLAIN, 'load = "0s"\ntokens_per_second = 500'),
    NARROW: _instance(NARROW, 'load = "0s"\ntokens_per_second = 20', "max_concurrent_requests = 1"),
    COLD: _instance(COLD, 'load = "2s"\ntokens_per_second = 500', "", _IMPATIENT),
    COLD_NODE: _instance(COLD_NODE, 'load = "2s"\ntokens_per_second = 500', "", _IMPATIENT),
    COLD_ANTHROPIC: _instance(COLD_ANTHROPIC, 'load = "2s"\ntokens_per_second = 500', "", _IMPATIENT),
    # With an idle time it is started in the mode in which faults are taken.
    BROKEN: _instance(BROKEN, 'load = "0s"\ntokens_per_second = 500', "",
                      instance='[instance.idle]\noffload_after = "1h"\n'),
    CUT: _instance(CUT, 'load = "0s"\ntokens_per_second = 500\nfaults = ["cut-mid-stream:3"]'),
}
#: tidegate.toml beside the ports.
SETTINGS = '[gpus]\nsource = "none"\n'

#: A function that models may call, in OpenAI's form.
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
        },
    },
}
