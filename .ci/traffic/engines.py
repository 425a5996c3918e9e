"""Stand-in engines that Tidegate does not start, and h2load in front of it."""

import json
import re
import subprocess
import tempfile
import urllib.request

from checks.report import expect, wait_for
from checks.tidegate import binary, free_port

#: Their name for the model.
MODEL = "tidegate/served"


class Engine:
    """One engine at a port of its own, which it keeps when it is started again."""

    def __init__(self, environment, *arguments):
        self._environment, self._arguments = environment, arguments or ("--tokens-per-second", "100")
        self.port = free_port()
        self.start()

    def start(self):
        """Starts it and waits until it answers."""
        self._process = subprocess.Popen(
            [binary(), "sim", MODEL, "--port", str(self.port), "--load", "0s", "--first-token", "20ms",
             *self._arguments],
            env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the engine is ready", self._is_ready, 20)

    def kill(self):
        """SIGKILL: its connections are reset, and nobody listens."""
        self._process.kill()
        self._process.wait(10)

    def upstream(self, more=""):
        """Its lines of a route file."""
        return f'[[upstream]]\nurl = "http://127.0.0.1:{self.port}"\nmodel = "{MODEL}"\n{more}\n'

    @property
    def label(self):
        """How the log and `tidegate ps` name it."""
        return f"127.0.0.1:{self.port}"

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as response:
                return response.status == 200
        except OSError:
            return False


def body(model, tokens=2):
    """A chat request whose answer has so many tokens."""
    return {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": tokens,
            "ignore_eos": True}


class Load:
    """h2load with four connections over TLS, as a process beside the check."""

    def __init__(self, gateway, token, model, *arguments):
        self._file = tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8")
        json.dump(body(model), self._file)
        self._file.flush()
        self._process = subprocess.Popen(
            ["h2load", "-c", "4", "-m", "4", *arguments, "-H", f"authorization: Bearer {token}",
             "-H", "content-type: application/json", "-d", self._file.name, gateway.url + "/v1/chat/completions"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def is_over(self):
        """Whether all of it was sent."""
        return self._process.poll() is not None

    def answered(self, seconds=120):
        """Waits for its end: how many were answered with 2xx, all of those it sent."""
        told, _ = self._process.communicate(timeout=seconds)
        self._file.close()
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", told)
        counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
        expect(codes and counts, told[-600:])
        good, *bad = (int(count) for count in codes.groups())
        # With a time limit, what is in flight at the end is not counted as failed.
        bad += [int(count) for count in counts.groups()[1:]]
        expect(good > 0 and not any(bad), f"{codes[0]}; {counts[0]}")
        return good
