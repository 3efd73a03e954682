"""The table in docs/reliability.md is true: every fault has a row, every test that it names is there and has the id."""

from __future__ import annotations

import ast
import re

import pytest

from tests.project.tree import ROOT, modules, tree_of

FAULTS = [*range(1, 17), *range(20, 35), *range(40, 50), *range(50, 61)]
"""The numbers of the project's list."""
ROW = re.compile(r"^\| (F\d\d) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def _rows() -> dict[str, str]:
    text = (ROOT / "docs" / "reliability.md").read_text()
    found = ROW.findall(text)
    assert len({fault for fault, _, _ in found}) == len(found), "a fault has two rows"
    return {fault: tested for fault, _, tested in found}


def _tests() -> dict[str, str]:
    """Name of each test -> its docstring and its module's."""
    found: dict[str, str] = {}
    for name in modules("tests"):
        tree = tree_of(name)
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                about = f"{ast.get_docstring(node) or ''} {ast.get_docstring(tree) or ''}"
                found[node.name] = f"{found.get(node.name, '')} {about}"
    return found


ROWS, TESTS = _rows(), _tests()


def test_every_fault_has_a_row() -> None:
    assert sorted(ROWS) == [f"F{number:02}" for number in FAULTS]


@pytest.mark.parametrize("fault", ROWS)
def test_the_tests_of_a_fault_are_there_and_have_its_id(fault: str) -> None:
    named = re.findall(r"`(test_\w+)`", ROWS[fault])
    assert named or "not here" in ROWS[fault]
    for name in named:
        assert name in TESTS, f"there is no test {name}"
        assert fault in TESTS[name], f"{name} does not say that it is of {fault}"
