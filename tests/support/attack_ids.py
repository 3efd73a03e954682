"""Which test is of which attack: by the ids in its name and in its docstring."""

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
    """Id -> ``path::function`` of each test that says it is of it; the path is relative to the project."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                about = f"{node.name.upper()} {ast.get_docstring(node) or ''}"
                for attack in re.findall(r"A\d\d(?!\d)", about):
                    found[attack].add(f"{path.relative_to(TESTS.parent)}::{node.name}")
    return dict(found)
