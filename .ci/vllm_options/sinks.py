"""Every place where the installed vLLM imports what it is told to, and the argument keys that lead there.

vLLM's source is read, not run. A key leads to a sink where its name stands in a function that
calls one, or in the class around it, and it is a field of vLLM's configuration or asked of one
of its tables. An operator's file with such a key is tried in each argument that takes JSON.
"""

import ast
import http.client
import json
import ssl

from checks.report import expect

SINKS = {"import_module", "resolve_obj_by_qualname", "spec_from_file_location", "__import__", "import_from_path",
         "resolve_obj_by_path", "load_general_plugins"}
#: `cloudpickle.loads` is a sink, `json.loads` is none.
PICKLES = {"cloudpickle", "pickle", "dill"}
#: Keys that are known to lead to code: where the reading does not find them, it is the reading that is wrong.
KNOWN = {"reasoning_parser_plugin", "spec_module_path", "cache_policy_module_path", "module_path", "encoder_cache_manager_cls",
         "kv_connector_module_path", "ec_connector_module_path", "scheduler_cls", "worker_cls", "worker_extension_cls"}
#: Arguments that take JSON, whatever type theirs are.
MORE_JSON = {"hf_overrides", "model_loader_extra_config", "mm_processor_kwargs", "override_generation_config",
             "default_chat_template_kwargs", "additional_config", "limit_mm_per_prompt", "pooler_config"}
#: Arguments whose keys are not vLLM's own.
OPEN = {"additional_config", "ec_transfer_config", "hf_overrides", "kv_transfer_config", "model_loader_extra_config"}
#: What stands behind a key: code by its module, by its file, by its class.
VALUES = ('"x.y"', '"/x/y.py"', '"x.y:Z"', '{ module_path = "x.y" }', '[{ module_path = "x.y" }]')


def _name(call):
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_sink(node):
    if not isinstance(node, ast.Call):
        return False
    if _name(node) in {"loads", "load"} and isinstance(node.func, ast.Attribute):
        return getattr(node.func.value, "id", "") in PICKLES
    return _name(node) in SINKS


def _words(tree):
    """Names and short texts in a piece of code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value


def _asked(tree):
    """Keys that are asked of a table: `x.get("key")`, `x["key"]`."""
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Call) and node.args and _name(node).startswith("get"):
            key = node.args[0]
        elif isinstance(node, ast.Subscript):
            key = node.slice
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier():
            yield key.value


def _fields(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation)


#: Where one file reads a key and another's factory imports it.
FACTORIES = ("v1/kv_offload", "distributed", "config", "v1/core", "v1/executor", "entrypoints")


def read(package):
    """Sinks, the fields that lead to them, the keys that are asked of tables near them, and the arguments that take JSON."""
    sinks, near, asked, fields = 0, set(), set(), set()
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        place = str(path.relative_to(package))
        of_factory = place.startswith(FACTORIES)
        of_config = path.parent.name == "config"
        has_sink = any(word in text for word in (*SINKS, *PICKLES))
        if "third_party" in path.parts or not (of_factory or of_config or has_sink):
            continue
        tree = ast.parse(text)
        if of_config:
            fields.update(name for name, _ in _fields(tree))
        if of_factory:
            asked.update(_asked(tree))
        for node in ast.iter_child_nodes(tree):
            found = sum(map(_is_sink, ast.walk(node)))
            if found:
                sinks += found
                near.update(_words(node))
                asked.update(_asked(node))
    arguments = ast.parse((package / "engine" / "arg_utils.py").read_text(encoding="utf-8"))
    args = dict(_fields(next(node for node in arguments.body if getattr(node, "name", "") == "EngineArgs")))
    fields.update(args)
    takes = {name for name, kind in args.items() if "Config" in kind or "dict" in kind} | (MORE_JSON & set(args))
    # Names of variables and constants are no keys.
    return sinks, {key for key in near & fields if key.islower()}, {key for key in asked if key.islower()}, takes


class Operator:
    """Someone with a token of an operator's, who tries files without writing any."""

    def __init__(self, gateway):
        trust = ssl.create_default_context(cafile=gateway.ca)
        self._line = http.client.HTTPSConnection("localhost", gateway.admin_port, timeout=20, context=trust)
        token = gateway.token("--workspace", "w1", "--project", "research", "--role", "operator")
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/toml"}

    def tries(self, model, options):
        """Status and text for an instance with these options."""
        text = f'[instance]\nname = "theirs"\nproject = "research"\n[[deployment]]\nmodel = {json.dumps(str(model))}\n[deployment.options]\n{options}\n'
        self._line.request("POST", "/api/v1/instances?dry_run=1", text.encode(), self._headers)
        answer = self._line.getresponse()
        return answer.status, answer.read().decode()


def run(report, gateway, package, model):
    """Tries every key in every argument. `model` is one that an admin's file names."""
    with report.check("no key that leads to one of vLLM's imports passes from an operator") as check:
        sinks, fields, asked, takes = read(package)
        keys = fields | asked
        expect(sinks >= 40 and keys >= KNOWN, f"{sinks} sinks were found, and not {KNOWN - keys}: the reading is wrong")
        operator = Operator(gateway)
        status, said = operator.tries(model, "max_num_seqs = 8")
        expect(status == 200, f"what is harmless is refused: {status} {said}")
        passed, tried = [], 0
        for row, key in enumerate(sorted(keys)):
            value = VALUES[row % len(VALUES)]
            # What is only asked of a table stands in one of those that vLLM leaves open.
            where = takes if key in fields else takes & OPEN
            files = [f"model_overrides = {{ {argument} = {{ {key} = {value} }} }}" for argument in sorted(where)]
            files += [f"config_overrides = {{ {key} = {value} }}", f"model_overrides = {{ kv_transfer_config = {{ kv_connector_extra_config = {{ {key} = {value} }} }} }}"]
            for options in files:
                status, said = operator.tries(model, options)
                tried += 1
                expect(status in {200, 403, 422}, f"{options}: {status} {said}")
                if status == 200:
                    passed.append(options)
        expect(not passed, f"{len(passed)} passed: {passed}")
        check.figure = f"{sinks} sinks, {len(keys)} keys, {len(takes)} arguments: {tried} files, all refused"
