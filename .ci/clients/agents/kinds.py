"""How each agent is run against a gateway: its words, its variables, its files."""

import json
import os
import subprocess
from pathlib import Path

from checks.tidegate import binary

HERE = Path(__file__).parent

#: What is asked; the stand-in answers with words of its own.
PROMPT = "Say hello in a few words."


def _root():
    return Path(os.environ.get("TIDEGATE_CI_AGENTS", "/nonexistent"))


class Agent:
    """One agent: where it is installed, and what starts it."""

    def __init__(self, name, program, command, variables):
        self.name, self._program, self._command, self._variables = name, program, command, variables

    @property
    def program(self):
        """The file that is run."""
        return _root() / self._program

    def is_installed(self):
        """Whether there is something to run."""
        return self.program.exists()

    def command(self, ask):
        """The command line for one request."""
        return [str(self.program), *self._command(ask)]

    def variables(self, ask):
        """The environment: nothing of ours, so nothing that this machine logs in with."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "HOME": str(ask.home), "TERM": "dumb",
            "TMPDIR": str(ask.home), "CI": "true", **self._variables(ask)}


class _Set(Agent):
    """One whose settings are those of `tidegate client`, file and variables; `variables` are what only a check needs."""

    def variables(self, ask):
        token = ask.home / "token"
        token.write_text(ask.token, encoding="utf-8")
        words = ["client", self.name, "--json", "--url", ask.url, "--model", ask.model, "--ca", ask.ca, "--token-file", str(token)]

        def told(*more):
            return subprocess.run(
                [binary(), *words, *more], env={**os.environ, "HOME": str(ask.home)}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=60, check=True).stdout

        settings = json.loads(told())
        if settings["file"]:
            told("--write")
        return {**super().variables(ask), **settings["environment"]}


def _claude(ask):
    return ["-p", PROMPT, "--max-turns", "1"]


def _claude_variables(ask):
    return {"DISABLE_AUTOUPDATER": "1"}


def _codex(ask):
    return ["exec", "--skip-git-repo-check", "--sandbox", "read-only", PROMPT]


def _codex_variables(ask):
    return {}


def _opencode(ask):
    return ["run", PROMPT]


def _opencode_variables(ask):
    return {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}


def _aider(ask):
    return ["--no-check-update", "--analytics-disable", "--no-git", "--yes-always", "--no-gitignore",
            "--no-auto-commits", "--no-fancy-input", "--no-pretty", "--edit-format", "ask", "--message", PROMPT]


def _aider_variables(ask):
    return {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _python_variables(ask):
    return {"SSL_CERT_FILE": ask.ca, "OPENAI_BASE_URL": f"{ask.url}/v1", "OPENAI_API_KEY": ask.token,
            "TIDEGATE_MODEL": ask.model, "OPENAI_AGENTS_DISABLE_TRACING": "1", "PROMPT": PROMPT, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _node_variables(ask):
    return {"NODE_EXTRA_CA_CERTS": ask.ca, "OPENAI_BASE_URL": f"{ask.url}/v1", "OPENAI_API_KEY": ask.token,
            "TIDEGATE_MODEL": ask.model, "PROMPT": PROMPT, "TIDEGATE_NODE_MODULES": str(_root() / ask.agent)}


def _script(name):
    return lambda ask: [str(HERE / name)]


class _Node(Agent):
    """A script for Node; what it imports is looked for beside the installed package."""

    @property
    def program(self):
        return _root() / self._program

    def command(self, ask):
        return ["node", *self._command(ask)]


CLAUDE = _Set("claude-code", "claude-code/node_modules/.bin/claude", _claude, _claude_variables)
CODEX = _Set("codex", "codex/node_modules/.bin/codex", _codex, _codex_variables)
OPENCODE = _Set("opencode", "opencode/node_modules/.bin/opencode", _opencode, _opencode_variables)
AIDER = _Set("aider", "aider/bin/aider", _aider, _aider_variables)
AI_SDK = _Node("ai-sdk", "ai-sdk/node_modules/ai", _script("ai_sdk.mjs"), _node_variables)
LANGCHAIN = _Node("langchain-js", "langchain-js/node_modules/@langchain/openai", _script("langchain.mjs"), _node_variables)
PYDANTIC = Agent("pydantic-ai", "pydantic-ai/bin/python", _script("pydantic_ai_stream.py"), _python_variables)
OPENAI_AGENTS = Agent("openai-agents", "openai-agents/bin/python", _script("openai_agents_stream.py"), _python_variables)

ALL = [CLAUDE, CODEX, OPENCODE, AIDER, AI_SDK, LANGCHAIN, PYDANTIC, OPENAI_AGENTS]
