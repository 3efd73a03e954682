"""The statistics of a benchmark: pure functions, no numbers of ours in them."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Standard deviations to either side that hold 95 % of a normal distribution."""


def wilson(passed: int, trials: int, z: float = Z_95) -> tuple[float, float] | None:
    """The Wilson score interval of a pass rate, (low, high) from 0 to 1; None without any trial.

    Unlike the textbook interval it stays within 0 and 1 and has a width also where all or none passed.
    """
    if trials == 0:
        return None
    rate, square = passed / trials, z * z
    centre = (rate + square / (2 * trials)) / (1 + square / trials)
    half = z / (1 + square / trials) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials))
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == trials else min(1.0, centre + half)
    return low, high


def pass_at(k: int, passed: int, trials: int) -> float | None:
    """The chance that at least one of ``k`` trials drawn from these passes: the unbiased estimator
    1 - C(trials - passed, k) / C(trials, k) of Chen et al. 2021. None when there are fewer than ``k``."""
    if k > trials:
        return None
    return 1 - math.comb(trials - passed, k) / math.comb(trials, k)
