"""Which test is of which attack: by the ids in its name and in its docstring, wherever it is run."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
GROUPS = {
    "archives": range(1, 15),
    "git and repository": range(20, 29),
    "job file, templates, shell": range(30, 40),
    "Redis and messages": range(40, 45),
    "network and host": range(50, 59),
    "resources": range(60, 69),
    "truth and secrets": range(70, 79),
    "terminal, web, reports": range(80, 88),
}
ATTACKS = [f"A{number:02}" for numbers in GROUPS.values() for number in numbers]


@cache
def attack_tests() -> dict[str, set[str]]:
    """Id -> ``path::function`` of each test that says it is of it; the path is relative to the project. One that is
    imported from elsewhere, to be run on something else, is a test of both places."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(TESTS.rglob("test_*.py"))}
    own = {path: _ids(tree) for path, tree in trees.items()}
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for name, attacks in {**own[path], **_imported(tree, own)}.items():
            for attack in attacks:
                found[attack].add(f"{path.relative_to(TESTS.parent)}::{name}")
    return dict(found)


def _ids(tree: ast.Module) -> dict[str, set[str]]:
    """Test -> the attacks that it says it is of."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            about = f"{node.name.upper()} {ast.get_docstring(node) or ''}"
            found[node.name] = set(re.findall(r"A\d\d(?!\d)", about))
    return found


def _imported(tree: ast.Module, own: dict[Path, dict[str, set[str]]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            there = own.get(TESTS.parent / f"{node.module.replace('.', '/')}.py", {})
            names = {alias.name for alias in node.names}
            found |= {name: ids for name, ids in there.items() if name in names or "*" in names}
    return found
