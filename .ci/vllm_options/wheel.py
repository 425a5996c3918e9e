"""A package `vllm` whose command is that of an installation elsewhere.

An install of the real package takes gigabytes. This one goes through the same installer
into the same kind of venv, and what it starts is real vLLM.
"""

import base64
import hashlib
import zipfile

SCRIPT = """#!python
import os, sys
os.execv({python!r}, [{python!r}, {command!r}, *sys.argv[1:]])
"""


def build(directory, version, programs):
    """Writes the wheel into `directory`; `programs` holds the vLLM that it stands for."""
    info = f"vllm-{version}.dist-info"
    script = SCRIPT.format(python=str(programs / "python"), command=str(programs / "vllm"))
    files = {
        f"vllm-{version}.data/scripts/vllm": script,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tidegate\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(text)},{len(text.encode())}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / f"vllm-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16  # Installers look whether it is a program.
            wheel.writestr(entry, text)


def _digest(text):
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
