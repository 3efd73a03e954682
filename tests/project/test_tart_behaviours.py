"""Each behaviour that a stand-in for Tart must have is tested by its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "contract" / "tart"
BEHAVIOURS = 43


def test_every_behaviour_has_a_test() -> None:
    numbers: set[int] = set()
    for file in FOLDER.glob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found = re.match(r"[\d, ]+", ast.get_docstring(node) or "")
                assert found, f"{file.name}: {node.name} names no behaviour"
                numbers |= {int(number) for number in found[0].split(",")}
    assert numbers == set(range(1, BEHAVIOURS + 1))
