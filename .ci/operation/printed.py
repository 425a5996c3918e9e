"""What Tidegate prints for an admin's machine: units, a Containerfile, completions, manual pages."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from checks.report import expect, skip
from checks.tidegate import binary

#: The highest exposure that `systemd-analyze security` may find, of 10.
EXPOSURE_MAX = 3.0

#: Newer than what checks it here: systemd has it from 254 on.
_NEWER = "DelegateSubgroup"


def _printed(*arguments):
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=30, check=False)
    expect(done.returncode == 0, f"tidegate {' '.join(map(str, arguments))}: {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


def _ran(*command, words=None, cwd=None):
    return subprocess.run(command, input=words, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def units(report):
    """systemd reads the units, and judges what the service is kept from."""
    if not shutil.which("systemd-analyze"):
        skip("operation: there is no systemd-analyze, so no unit was verified")
        return
    with tempfile.TemporaryDirectory() as place:
        files = {"tidegate.service": _printed("unit", "--binary", binary()), "tidegate.socket": _printed("unit", "--socket")}
        for name, text in files.items():
            (Path(place) / name).write_text(text, encoding="utf-8")
        with report.check("systemd-analyze verify finds nothing wrong with the unit and its socket") as check:
            done = _ran("systemd-analyze", "verify", *(f"./{name}" for name in files), cwd=place)
            told = [line for line in done.stderr.splitlines() if _NEWER not in line and place in line]
            expect(done.returncode == 0 and not told, f"{done.returncode}: {told}")
            check.figure = f"{len(files['tidegate.service'].splitlines())} lines"
        with report.check("systemd-analyze security finds the service well kept") as check:
            done = _ran("systemd-analyze", "security", "--offline=true", "./tidegate.service", cwd=place)
            told = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
            expect(told, f"{done.returncode}: {done.stderr[-300:]}")
            expect(float(told[1]) <= EXPOSURE_MAX, told[0])
            check.figure = f"exposure {told[1]} of 10"


def _completed(script, line):
    """What bash offers behind a line."""
    words = line.split(" ")
    asked = (f'source /dev/stdin <<"END_OF_SCRIPT"\n{script}\nEND_OF_SCRIPT\nCOMP_WORDS=({" ".join(words[:-1])} "{words[-1]}")\n'
             f'COMP_CWORD={len(words) - 1}\n_tidegate tidegate "{words[-1]}" "{words[-2]}"\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n')
    done = _ran("bash", "--norc", "-c", asked)
    expect(done.returncode == 0, done.stderr[-300:])
    return done.stdout.split()


def completions(report):
    """The shells read the completions, and bash offers what there is."""
    with report.check("bash completes commands, their commands and their options") as check:
        script = _printed("completions", "bash")
        offered = _completed(script, "tidegate ")
        for word in ("serve", "token", "unit", "completions"):
            expect(word in offered, f"{word}: {offered}")
        expect("worker-exec" not in offered, "what is for us alone is offered")
        expect(_completed(script, "tidegate token cr") == ["create"], "token create")
        options = _completed(script, "tidegate token create --pro")
        expect("--project" in options, f"{options}")
        check.figure = f"{len(offered)} words behind tidegate"
    for shell in ("zsh", "fish"):
        if not shutil.which(shell):
            skip(f"operation: there is no {shell}, so its completions were not read")
            continue
        with report.check(f"{shell} reads its completions"):
            with tempfile.NamedTemporaryFile("w", suffix=f".{shell}", encoding="utf-8") as file:
                file.write(_printed("completions", shell))
                file.flush()
                done = _ran(shell, "-n", file.name)
            expect(done.returncode == 0, done.stderr[-300:])


def pages(report):
    """man reads the pages."""
    with tempfile.TemporaryDirectory() as place, report.check("man: each command has a page, and none is faulty") as check:
        _printed("man", "--directory", place)
        found = sorted(Path(place).glob("*.1"))
        listed = re.findall(r"^  ([a-z]+)  ", _printed("--help"), re.MULTILINE)
        for command in set(listed) - {"help"}:
            expect(Path(place, f"tidegate-{command}.1") in found, f"no page of {command}")
        checker = [["mandoc", "-Tlint", "-W", "error"]] if shutil.which("mandoc") else []
        checker += [["man", "--warnings=w", "-l"]] if shutil.which("man") and not checker else []
        for page in found if checker else []:
            done = _ran(*checker[0], str(page))
            expect(done.returncode == 0, f"{page.name}: {done.stdout[-300:]} {done.stderr[-300:]}")
        if not checker:
            skip("operation: there is no mandoc and no man, so pages were not read")
        check.figure = f"{len(found)} pages"


def containers(report):
    """A Containerfile whose instructions are known, by a builder where there is one."""
    with report.check("the Containerfile: a pinned base, another user, volumes, a health check that it has") as check:
        for more in ([], ["--vllm", "0.32.0"]):
            text = _printed("container", *more)
            base = re.search(r"^FROM (\S+)$", text, re.MULTILINE)
            expect(base and ":" in base[1] and not base[1].endswith(":latest"), f"{base}")
            user = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
            expect(user[-1] == "10001:10001", f"{user}")
            for line in ('VOLUME ["/etc/tidegate", "/var/lib/tidegate"]', "STOPSIGNAL SIGTERM"):
                expect(line in text.splitlines(), line)
            command = re.search(r'^HEALTHCHECK .* CMD \["tidegate", "(\w+)"\]$', text, re.MULTILINE)
            expect(command, "no health check")
            _printed(command[1], "--help")
            check.figure = f"{check.figure} {base[1]}".strip()


def run(report, _engine):
    """All of it."""
    units(report)
    completions(report)
    pages(report)
    containers(report)
