"""The table in docs/security.md is true: a row for every attack, and every test file in it has the attack's id."""

from __future__ import annotations

import re

import pytest

from tests.project.tree import ROOT
from tests.support.attack_ids import ATTACKS, attack_tests

ROWS = dict(
    re.findall(r"^\| (A\d\d) \| [^|]+ \| ([^|]+) \|$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
)


def test_every_attack_has_one_row() -> None:
    assert list(ROWS) == ATTACKS


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_files_of_an_attack_have_tests_of_it_or_the_row_says_why_not(attack: str) -> None:
    of_it = {test.partition("::")[0] for test in attack_tests().get(attack, ())}
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", ROWS[attack]))
    assert named <= of_it
    assert bool(named) != ("not possible here" in ROWS[attack])
    assert bool(named) == bool(of_it), "a test that nobody told of, or none"


def test_every_test_in_the_attack_suite_says_which_attack_it_is() -> None:
    said = {test for tests in attack_tests().values() for test in tests}
    found = {
        f"{path.relative_to(ROOT)}::{name}"
        for path in (ROOT / "tests" / "attacks").glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert found - said == set()
