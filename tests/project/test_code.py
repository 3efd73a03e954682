"""Rules about the code that no linter has: who imports whom, and what is never called."""

from __future__ import annotations

import ast

import pytest

from tests.project.tree import imports, modules, tree_of

OURS = modules("tatin_jobs", "worker")
MACHINE_COMMANDS = ("image", "up", "ssh", "down", "delete", "status", "attach")
HOST_COMMANDS = {
    f"tatin_jobs/cli/{name}.py" for name in ("run", "prerequisites", "worker", "doctor", *MACHINE_COMMANDS)
}
"""What starts a worker or looks at its host: these import ``worker`` inside functions, so that a client never does."""
HUEY_HOMES = {"tatin_jobs/queue.py", "worker/tasks.py"}
FORBIDDEN_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
"""Reading what these wrote may run code; YAML is read with ruamel.yaml, in its safe form."""
ALLOWED_MODULES = {
    ("worker/sandboxes/bwrap/packets.py", "marshal"): "in the warden, of what the worker sends that had it forked",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", ".extractall", ".unsafe_load"}
ALLOWED_CALLS = {
    ("worker/sandboxes/launcher.py", "eval"): "inside the guest, without names: what the sender of its source sends",
}


def _of(module: str, *names: str) -> bool:
    return module.split(".")[0] in names


@pytest.mark.parametrize("name", modules("tatin_jobs"))
def test_the_client_side_never_imports_the_worker(name: str) -> None:
    found = [later for module, later in imports(name) if _of(module, "worker")]
    assert all(found) if name in HOST_COMMANDS else not found


def test_huey_is_imported_in_two_places_only() -> None:
    users = {name for name in OURS for module, _ in imports(name) if _of(module, "huey")}
    assert users <= HUEY_HOMES


def test_huey_is_imported_at_all() -> None:
    assert any(_of(module, "huey") for name in HUEY_HOMES for module, _ in imports(name))


@pytest.mark.parametrize("name", OURS)
def test_nothing_reads_a_format_that_runs_code(name: str) -> None:
    found = {(name, module) for module, _ in imports(name) if _of(module, *FORBIDDEN_MODULES)}
    assert found <= ALLOWED_MODULES.keys()


@pytest.mark.parametrize("name", OURS)
def test_no_text_is_run_as_code_and_no_shell_is_asked(name: str) -> None:
    calls = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    named = {_called(call) for call in calls}
    assert {(name, word) for word in named & FORBIDDEN_CALLS} <= ALLOWED_CALLS.keys()
    assert not [call for call in calls for option in call.keywords if option.arg == "shell"]


def test_each_exception_is_still_needed() -> None:
    for name, module in ALLOWED_MODULES:
        assert module in {used for used, _ in imports(name)}
    for name, word in ALLOWED_CALLS:
        assert word in {_called(node) for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize(
    "name", [name for name in modules("tatin_jobs", "worker", "benchmarks", "tests") if tree_of(name).body]
)
def test_each_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(tree_of(name)), f"{name} begins without a docstring"


def _called(call: ast.Call) -> str:
    """``name`` of a plain call, ``os.name`` of one on that module, ``.name`` of any other method."""
    match call.func:
        case ast.Name(id=word):
            return word
        case ast.Attribute(value=ast.Name(id="os"), attr=word):
            return f"os.{word}"
        case ast.Attribute(attr=word):
            return f".{word}"
    return ""
