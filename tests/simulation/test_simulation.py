"""The simulation in CI: seeds whose invariants hold, and planted bugs that are found. Prints how much was tried."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import pytest

from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.world import run_seed

SECONDS = 70.0 if os.environ.get("CI") else 15.0
"""How long seeds are tried; a longer run: ``python -m tests.simulation --seconds 3600``."""
LEAST_SEEDS = 3
STEPS = 250
SEEDS_FOR_A_MUTANT = 60

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_the_invariants_hold_for_every_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """I1-I4, I8, I9, I11, promises 1, 2, 3, 4, 5, 7; F05, F07, F20, F23-F26, F31, F34, F41, F49, F54.

    A failing seed is run again, step by step, by ``python -m tests.simulation --seed N``.
    """
    began, seed, steps = time.monotonic(), 0, 0
    while seed < LEAST_SEEDS or time.monotonic() - began < SECONDS:
        try:
            steps += run_seed(seed, STEPS)
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {error}\nagain: python -m tests.simulation --seed {seed} --steps {STEPS}")
        seed += 1
    with capsys.disabled():
        print(f"\nsimulation: {seed} seeds, {steps} steps, all invariants held")


def test_a_seed_replays_exactly() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_seed(1, STEPS, trace.append)
    assert traces[0] == traces[1]
    assert len(traces[0]) > STEPS / 4


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    assert hunt(name, STEPS, SEEDS_FOR_A_MUTANT), f"{name}: not found by {SEEDS_FOR_A_MUTANT} seeds"
