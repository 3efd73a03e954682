"""The statistics against values worked out elsewhere."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from tatin_jobs.stats import pass_at, wilson


@pytest.mark.parametrize(
    ("passed", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (1, 10, 0.0179, 0.4042),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 3, 0.0, 0.5615),
        (3, 3, 0.4385, 1.0),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_interval(passed: int, trials: int, low: float, high: float) -> None:
    found = wilson(passed, trials)
    assert found is not None
    assert found == pytest.approx((low, high), abs=5e-5)


def test_without_a_trial_there_is_no_interval() -> None:
    assert wilson(0, 0) is None


@pytest.mark.parametrize("trials", range(1, 8))
def test_wilson_holds_the_rate_and_mirrors_its_complement(trials: int) -> None:
    for passed in range(trials + 1):
        low, high = wilson(passed, trials) or (1.0, 0.0)
        assert 0 <= low <= passed / trials <= high <= 1
        assert wilson(trials - passed, trials) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("trials", "passed"), [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_pass(trials: int, passed: int) -> None:
    outcomes = [True] * passed + [False] * (trials - passed)
    for k in range(1, trials + 1):
        draws = list(combinations(outcomes, k))
        assert pass_at(k, passed, trials) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_needs_k_trials() -> None:
    assert pass_at(4, 3, 3) is None
    numpy_form = 1 - math.prod(1 - 10 / i for i in range(1000 - 50 + 1, 1000 + 1))  # as the paper's authors wrote it
    assert pass_at(10, 50, 1000) == pytest.approx(numpy_form)
