"""Settings from the environment, and secrets from files, as containers and units give them."""

import urllib.request

from checks.report import expect
from checks.tidegate import Tidegate, free_port


def settings(report):
    """A variable takes the place of what the file says, and a wrong one is told by its name."""
    port = free_port()
    with Tidegate('[gpus]\nsource = "none"\n', {"TIDEGATE_METRICS_LISTEN": f"127.0.0.1:{port}"}) as gateway:
        with report.check("TIDEGATE_METRICS_LISTEN is taken instead of metrics.listen, and `tidegate ready` asks there") as check:
            gateway.start()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                expect(answer.status == 200, f"{answer.status}")
            said = gateway.run("ready").stdout.strip()
            check.figure = said
        with report.check("--admin-token-file and TIDEGATE_ADMIN_TOKEN_FILE: the token stands in a file"):
            token = gateway.directory / "admin.token"
            token.write_text(gateway.token("--workspace", "w1", "--role", "admin") + "\n", encoding="utf-8")
            far = ["ps", "--admin-url", f"https://localhost:{gateway.admin_port}", "--admin-ca", str(gateway.ca)]
            gateway.run(*far, "--admin-token-file", str(token))
            gateway.environment["TIDEGATE_ADMIN_TOKEN_FILE"] = str(token)
            gateway.run(*far)
            token.write_text("two words\n", encoding="utf-8")
            told = gateway.run(*far, check=False)
            expect(told.returncode == 1 and "must hold the token alone" in told.stderr, told.stderr)
    wrong = {
        "TIDEGATE_GATEWAY_LISTEN": ("nowhere", "gateway.listen: "),
        "TIDEGATE_GATEWAY_LISTN": ("127.0.0.1:1", "did you mean TIDEGATE_GATEWAY_LISTEN?"),
        "TIDEGATE_GATEWAY__KEEP_ALIVE": ("", "gateway.keep_alive: this is empty"),
    }
    with Tidegate('[gpus]\nsource = "none"\n') as gateway:
        before = dict(gateway.environment)
        with report.check("a variable that is wrong, misspelled or no setting is an error that names it") as check:
            for name, (value, words) in wrong.items():
                gateway.environment = {**before, name: value}
                for command in ("check", "serve"):
                    done = gateway.run(command, check=False)
                    told = done.stdout + done.stderr
                    expect(done.returncode == 1 and words in told and name in told, f"{name}, {command}: {told}")
            check.figure = f"{len(wrong)} told"


def run(report, _engine):
    """All of it."""
    settings(report)
