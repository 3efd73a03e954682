"""Attempts on a real store: with the fake provider, whose dials a test may turn, or on each that runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attempts import Bench, bench
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.fake import FakeProvider


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, lambda home: FakeProvider(home.sandboxes, home.id())) as made:
        yield made
        _nothing_is_left(made)


@pytest.fixture(params=["fake", pytest.param("bwrap", marks=pytest.mark.needs("bwrap"))])
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    make = {
        "fake": lambda home: FakeProvider(home.sandboxes, home.id()),
        "bwrap": lambda home: BwrapProvider(home, home.id()),
    }[request.param]
    with bench(tmp_path, make, log_limit_mib=2) as made:
        yield made
        _nothing_is_left(made)


def _nothing_is_left(made: Bench) -> None:
    """I1, I4, I5, I6 after each test."""
    assert asyncio.run(made.provider.list()) == []
    assert made.context.journal.entries() == []
    assert made.context.lingering.needs() == []
    assert made.store.misplaced() == []
    assert made.store.beats() == {}
