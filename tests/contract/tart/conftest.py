"""What a stand-in for Tart must do to be faithful, behaviour by behaviour.

Each test's docstring begins with its number in the contract. On a Mac, ``TATIN_TEST_TART=tart`` runs the same tests
against the real one; those that turn a dial are the stand-in's alone and are skipped there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tart import Tart


@pytest.fixture
def tart(tmp_path: Path) -> Iterator[Tart]:
    made = Tart(tmp_path / "tart")
    made.good("create", "base", "--linux", "--disk-size", "2")
    yield made
    made.close()


@pytest.fixture
def dials(tart: Tart) -> Tart:
    """The same, for a test that turns a dial."""
    if not tart.is_stand_in:
        pytest.skip("this turns a dial of the stand-in")
    return tart
