# Tells the arguments of `vllm serve` as JSON. Run in the interpreter of an
# installed vLLM; what vLLM itself prints goes to standard error.
import importlib
import importlib.metadata
import json
import os

answer = os.dup(1)
os.dup2(2, 1)


def first_of(name, *modules):
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            pass
    raise SystemExit(f"this vLLM has no {name} in any of {', '.join(modules)}")


def form(action):
    kind = type(action).__name__
    reads = getattr(action.type, "__name__", "")
    if kind == "BooleanOptionalAction":
        return "no-switch"
    if kind == "StoreBoolean":
        return "bool"
    if action.nargs == 0:
        return "switch"
    if "Append" in kind:
        return "append"
    if action.nargs == "?":
        return "optional"
    if action.nargs is not None:
        return "list"
    if reads.startswith("human_readable"):
        return "tokens"
    if reads in ("loads", "parse_dataclass", "union_dict_and_str", "from_json"):
        return "json"
    return reads if reads in ("int", "float") else "value"


parser = first_of("FlexibleArgumentParser", "vllm.utils.argparse_utils", "vllm.utils")()
first_of(
    "make_arg_parser",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.openai.cli_args",
)(parser)
arguments = []
for action in parser._actions:
    names = [n for n in action.option_strings if not n.startswith("--no-")]
    names.sort(key=lambda name: not name.startswith("--"))
    if names:
        choices = [str(c) for c in action.choices or () if c is not None]
        arguments.append({"names": names, "form": form(action), "choices": choices})
text = json.dumps({"version": importlib.metadata.version("vllm"), "arguments": arguments})
with os.fdopen(answer, "w") as out:
    out.write(text)
