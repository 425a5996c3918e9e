"""Stand-in engines that Tidegate does not start: servers that someone else runs."""

import subprocess
import urllib.request

from checks.report import wait_for
from checks.tidegate import binary, free_port

#: Words for sounds.
VOICE = "voice"
#: Keeps its responses.
KEEPER = "keeper"

_KINDS = {
    VOICE: ["--kind", "transcribe", "--served-model-name", "tidegate/voice"],
    KEEPER: ["--responses-store", "--served-model-name", "tidegate/keeper"],
}


class Engines:
    """The processes, and the route file of each. Use it in a `with` block."""

    def __init__(self, environment):
        self._environment = environment
        self._processes = []
        self.routes = {}

    def __enter__(self):
        for name, options in _KINDS.items():
            port = free_port()
            self._processes.append(subprocess.Popen(
                [binary(), "sim", f"tidegate/{name}", "--port", str(port), "--load", "0s", "--first-token", "5ms",
                 "--tokens-per-second", "500", *options],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL))
            # Its name for the model differs from ours, so that each request is rewritten.
            self.routes[name] = (
                f'[route]\nname = "{name}"\nproject = "research"\n'
                f'[[upstream]]\nurl = "http://127.0.0.1:{port}"\nmodel = "tidegate/{name}"\n')
            wait_for(f"{name} is ready", lambda port=port: _is_ready(port), 20)
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        """Ends them, if that was not done before."""
        for process in self._processes:
            process.kill()
            process.wait(10)


def _is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False
