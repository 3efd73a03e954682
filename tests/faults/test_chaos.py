"""F02: whole jobs under random kills, freezes, a dead server and lost replies; the history of each is checked. This is
CI's size; ``python -m benchmarks.chaos`` is the same at any size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos import Chaos, Plan


@pytest.mark.needs("bwrap", "git", "valkey", "redis")
@pytest.mark.timeout(240)
def test_kills_and_freezes_lose_nothing_and_accept_nothing_twice(tmp_path: Path) -> None:
    """F02."""
    figures = Chaos(Plan(jobs=40, workers=3, kills=5, freezes=2, redis_kills=1, seed=7), tmp_path).run()
    print(figures)
    assert figures["problems"] == []
    assert (figures["lost"], figures["accepted_twice"], figures["orphans"], figures["over_capacity"]) == (0, 0, 0, 0)
    assert figures["kills"] == 5
    assert figures["deaths"] > 0, "the kills met running jobs"
