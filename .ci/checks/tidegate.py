"""A Tidegate in a directory of its own: settings, start, questions, end."""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from checks import processes
from checks.prometheus import Samples
from checks.report import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]


def binary():
    """The release binary; TIDEGATE_CI_BINARY names another one."""
    default = REPOSITORY / "target" / "release" / "tidegate"
    return Path(os.environ.get("TIDEGATE_CI_BINARY", default)).resolve()


#: Ports that were given out: the kernel may offer one again before it is listened on.
_GIVEN = set()


def free_port():
    """A loopback port that nobody listened on just now, another each time.

    Not one of those that the kernel chooses for connections, so that none takes it before it is listened on.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for _ in range(10_000):
        port = random.randrange(10_000, max(lowest, 20_000))
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN.add(port)
        return port
    raise AssertionError("no port is free")


def _marked(text):
    """The settings with our mark among the variables that workers get."""
    line = f'environment = ["{processes.MARK_VARIABLE}"]\n'
    table = "[workers]\n"
    return text.replace(table, table + line, 1) if table in text else f"{text}\n{table}{line}"


class Tidegate:
    """One gateway with its directory. Use it in a `with` block: it leaves nothing behind."""

    def __init__(self, settings="", environment=None, gateway_settings=""):
        # Short, as the kernel limits the paths of sockets.
        self.directory = Path(tempfile.mkdtemp(prefix="tg-"))
        self.mark = os.environ.get(processes.MARK_VARIABLE, "") + secrets.token_hex(8)
        self.port, self.metrics_port, self.admin_port = free_port(), free_port(), free_port()
        self.url = f"https://localhost:{self.port}"
        self.process = None
        self.environment = {**os.environ, **(environment or {}), processes.MARK_VARIABLE: self.mark}
        (self.directory / "routes.d").mkdir()
        head = (
            f'[gateway]\nlisten = ["127.0.0.1:{self.port}"]\naccess_log = "access.log"\n'
            f'{gateway_settings}[admin]\nlisten = "127.0.0.1:{self.admin_port}"\n'
            f'[metrics]\nlisten = "127.0.0.1:{self.metrics_port}"\n'
        )
        (self.directory / "tidegate.toml").write_text(_marked(head + settings), encoding="utf-8")

    @property
    def binary(self):
        """What is run."""
        return binary()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    # Its files.

    def route(self, name, text):
        """Writes a route file, as an editor that replaces it would."""
        path = self.directory / "routes.d" / f"{name}.toml"
        fresh = path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)

    @property
    def ca(self):
        """The authority that signed its certificate."""
        return self.directory / "certs" / "ca.pem"

    def log(self):
        """What it has said on standard error so far."""
        path = self.directory / "serve.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # Its life.

    def start(self, *arguments, seconds=30):
        """Starts it and waits until it accepts work; returns the seconds that took."""
        with (self.directory / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", *arguments], cwd=self.directory, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        wait_for(f"tidegate is ready ({self.log()[-400:]})", self._ready, seconds, pause=0.02)

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"tidegate ended with {self.process.returncode}: {self.log()[-800:]}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def kill(self):
        """SIGKILL of Tidegate alone: its workers stay."""
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds=60):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def end(self):
        """Ends whatever this gateway or its workers left, and removes the directory."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        processes.end_marked(self.mark)
        keep = os.environ.get("TIDEGATE_CI_KEEP")
        if keep:
            shutil.copytree(self.directory, Path(keep) / self.directory.name, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("run", "*.sock"))
        shutil.rmtree(self.directory, ignore_errors=True)

    # Questions.

    def get(self, path, token=None, timeout=10):
        """Status and body of a GET over TLS."""
        context = ssl.create_default_context(cafile=self.ca)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=context) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """Its figures now."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            return Samples(response.read().decode())

    def run(self, *arguments, check=True):
        """Runs a command of the command line in its directory."""
        done = subprocess.run(
            [binary(), *arguments], cwd=self.directory, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"tidegate {' '.join(arguments)}: {done.returncode}: {done.stderr.strip()}")
        return done

    def token(self, *arguments):
        """A new token, as `tidegate token create` prints it."""
        return self.run("token", "create", *arguments).stdout.strip()

    def deployment(self, identifier):
        """How `tidegate ps --json` shows one deployment."""
        shown = json.loads(self.run("ps", "--json").stdout)
        for instance in shown["instances"]:
            for deployment in instance["deployments"]:
                if deployment["id"] == identifier:
                    return deployment
        raise AssertionError(f"tidegate ps does not show {identifier}")

    def wait_status(self, identifier, status, seconds):
        """Waits until a deployment has this status; returns it as shown."""
        return self.wait_shown(identifier, "status", status, seconds)

    def wait_shown(self, identifier, key, value, seconds):
        """Waits until `tidegate ps` shows this value of a deployment; returns all it shows."""
        shown = {}

        def probe():
            shown.update(self.deployment(identifier))
            return shown[key] == value

        try:
            wait_for(f"{key} {value}", probe, seconds, pause=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}: {shown}") from None
        return shown

    def last_access(self):
        """The newest line of the access log, once there is one."""
        log = self.directory / "access.log"
        lines = wait_for("a line of the access log", lambda: log.read_text(encoding="utf-8").splitlines(), 5)
        return json.loads(lines[-1])
