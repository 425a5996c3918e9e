"""python3 -m admin_api: the description, the dashboard for Grafana and the alert rules, by the tools that read them."""

import json
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

from openapi_spec_validator import validate

from checks import openai_client
from checks.openai_client import hello
from checks.report import Report, exit_on_sigterm, expect, wait_for
from checks.tidegate import Tidegate, free_port

SIMULATED = '[gpus]\nsource = "simulated"\nsimulated = [{ memory = "16GiB" }]\n'
ROUTE = """
[instance]
name = "demo"
project = "demo"
engine = "sim"
[[deployment]]
model = "m"
endpoint_name = "demo-model"
start = "boot"
[deployment.sim]
load = "0s"
weights = "4GiB"
"""


def tool(name):
    """A program of Prometheus, which `.ci/run` unpacks into the cache."""
    return Path(os.environ["TIDEGATE_CI_CACHE"]) / "prometheus" / "usr" / "bin" / name


def admin(gateway, path):
    """The answer of the admin API to an admin, as JSON."""
    token = gateway.token("--workspace", "ci", "--role", "admin")
    context = ssl.create_default_context(cafile=gateway.ca)
    address = f"https://localhost:{gateway.admin_port}/api/v1/{path}"
    request = urllib.request.Request(address, headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return json.load(answer)


def queries(dashboard):
    """Every query of a dashboard, as Grafana would send it."""
    written = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for query in written:
        yield query.replace("$__rate_interval", "1m").replace("$route", ".*").replace("$deployment", ".*")


class Prometheus:
    """A real one, that scrapes the gateway every second. Use it in a `with` block."""

    def __init__(self, gateway, rules):
        self.url = f"http://127.0.0.1:{free_port()}"
        self._directory = gateway.directory / "prometheus"
        self._directory.mkdir()
        (self._directory / "rules.yml").write_text(rules, encoding="utf-8")
        (self._directory / "prometheus.yml").write_text(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [rules.yml]\n"
            "scrape_configs:\n  - job_name: tidegate\n    static_configs:\n"
            f"      - targets: [\"127.0.0.1:{gateway.metrics_port}\"]\n", encoding="utf-8")
        self._mark = gateway.mark
        self._process = None

    def __enter__(self):
        address = self.url.removeprefix("http://")
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [tool("prometheus"), f"--web.listen-address={address}", "--config.file=prometheus.yml",
                 "--storage.tsdb.path=data"], cwd=self._directory, stdout=log, stderr=log,
                env={**os.environ, "TIDEGATE_CI_MARK": self._mark})
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(20)

    def get(self, path, **parameters):
        """The data of an answer; an error of a query is raised."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            return json.load(answer)["data"]

    def scraped(self):
        """Whether it has seen the gateway a few times."""
        try:
            found = self.get("query", query="count_over_time(tidegate_build_info[1m])")["result"]
        except OSError:
            return False
        return bool(found) and float(found[0]["value"][1]) >= 5


def described(report, gateway):
    """The description must be valid OpenAPI, by a validator that others wrote."""
    with report.check("the description is valid OpenAPI") as check:
        text = admin(gateway, "openapi.json")
        validate(text)
        calls = sum(len(calls) for calls in text["paths"].values())
        check.figure = f"OpenAPI {text['openapi']}, {calls} calls"
        expect(calls > 35, "calls are missing")


def from_afar(report, gateway):
    """Commands over HTTPS with a token must say what they say over the socket."""
    with report.check("commands ask a gateway from afar") as check:
        token = gateway.token("--workspace", "ci", "--role", "admin")
        over_socket = json.loads(gateway.run("ps", "--json").stdout)
        remote = ["--admin-url", f"https://localhost:{gateway.admin_port}", "--admin-token", token,
                  "--admin-ca", str(gateway.ca)]
        over_https = json.loads(gateway.run("ps", "--json", *remote).stdout)
        names = [[i["name"] for i in view["instances"]] for view in (over_socket, over_https)]
        expect(names[0] == names[1] == ["demo"], f"{names}")
        link = gateway.run("login", *remote).stdout.strip()
        expect(re.fullmatch(r"https://127\.0\.0\.1:\d+/login\?code=\S{43}", link), link)
        check.figure = "ps and login, with a token"


def grafana(report, gateway):
    """Every query must be one that a real Prometheus answers, on metrics that are there."""
    dashboard = json.loads(gateway.run("grafana").stdout)
    rules = gateway.run("grafana", "--alerts").stdout
    with report.check("promtool accepts the alert rules") as check:
        path = gateway.directory / "rules.yml"
        path.write_text(rules, encoding="utf-8")
        done = subprocess.run([tool("promtool"), "check", "rules", path], capture_output=True,
                              text=True, timeout=30, check=False)
        expect(done.returncode == 0, done.stdout + done.stderr)
        check.figure = done.stdout.split("SUCCESS: ")[-1].strip()
    with report.check("Prometheus answers every query of the dashboard") as check, \
            Prometheus(gateway, rules) as prometheus:
        wait_for("Prometheus has scraped", prometheus.scraped, 60)
        known = set(prometheus.get("label/__name__/values"))
        names = set()
        for query in queries(dashboard):
            prometheus.get("query", query=query)
            names |= set(re.findall(r"tidegate_\w+", query))
        names |= set(re.findall(r"tidegate_\w+", rules))
        expect(names <= known, f"not scraped: {sorted(names - known)}")
        firing = prometheus.get("alerts")["alerts"]
        firing = [alert["labels"]["alertname"] for alert in firing if alert["state"] == "firing"]
        expect(not firing, f"alerts of a gateway that is well: {firing}")
        check.figure = f"{len(list(queries(dashboard)))} queries, {len(names)} names"


def idle(report, gateway):
    """Ten dashboards that poll must cost little."""
    with report.check("ten idle dashboards cost little") as check:
        token = gateway.token("--workspace", "ci", "--role", "admin")
        polls = ["instances", "endpoints", "gpus", "status"]
        spent, began = cpu(gateway.process.pid), time.monotonic()
        config = "\n".join(
            f'url = "https://localhost:{gateway.admin_port}/api/v1/{path}"\noutput = "/dev/null"'
            for path in polls)
        rounds = 0
        while time.monotonic() - began < 10:
            for _ in range(10):
                subprocess.run(["curl", "-s", "--cacert", gateway.ca, "-H", f"Authorization: Bearer {token}",
                                "-K", "-"], input=config, text=True, check=True, timeout=20)
            rounds += 1
            time.sleep(max(0, began + 5 * rounds - time.monotonic()))
        spent = cpu(gateway.process.pid) - spent
        share = spent / (time.monotonic() - began)
        check.figure = f"{share:.2%} of a core, with a new TLS connection for each poll of each"
        expect(share < 0.05, "more than 5 % of a core")


def cpu(pid):
    """Seconds of processor time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    """Runs the checks."""
    exit_on_sigterm()
    report = Report("admin_api")
    with Tidegate(settings=SIMULATED) as gateway:
        gateway.route("demo", ROUTE)
        gateway.start()
        described(report, gateway)
        from_afar(report, gateway)
        token = gateway.token("--workspace", "ci", "--project", "demo")
        gateway.wait_shown("demo/demo-model", "phase", "ready", 60)
        with openai_client.client(gateway, token) as client:
            client.chat.completions.create(model="demo-model", messages=hello(), max_tokens=8)
        grafana(report, gateway)
        idle(report, gateway)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
