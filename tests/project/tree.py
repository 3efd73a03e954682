"""The files of the project as they would be committed, and their syntax trees."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def files() -> tuple[str, ...]:
    """Every file that is in git or would be added to it, relative to the root, sorted."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    return tuple(sorted(name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()))


def modules(*folders: str) -> list[str]:
    """The Python files under these folders."""
    return [name for name in files() if name.endswith(".py") and name.startswith(tuple(f"{one}/" for one in folders))]


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """(module, whether importing the file leaves it alone) for each import: those in a function and those for the type
    checker only are not made then. Relative imports are not used here."""
    later: set[ast.AST] = set()
    for node in ast.walk(tree_of(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _for_types_only(node):
            later.update(ast.walk(node))
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node in later


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
