"""``python -m tests.simulation``: see the package."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.simulation.checks import Violated
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.world import run_seed

MANY_SEEDS = 1000
"""For a planted bug."""


def main() -> int:
    """Run what was asked for; 1 when an invariant was violated, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="this seed alone, with its trace")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed of a longer run")
    parser.add_argument("--seconds", type=float, default=60, help="how long to try one seed after the other")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--mutants", action="store_true", help="plant each bug, and say which seed finds it")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.mutants:
        missed = 0
        for name in MUTANTS:
            hit = hunt(name, options.steps, MANY_SEEDS)
            missed += not hit
            print(f"{name:<28} {hit or 'NOT FOUND'}", flush=True)
        return 1 if missed else 0
    if options.seed is not None:
        print(f"{run_seed(options.seed, options.steps, print)} steps")
        return 0
    began, seed, steps = time.perf_counter(), options.first, 0
    while time.perf_counter() - began < options.seconds:
        try:
            steps += run_seed(seed, options.steps)
        except Violated as error:
            print(f"seed {seed}: {error}\npython -m tests.simulation --seed {seed} --steps {options.steps}")
            return 1
        seed += 1
    minutes = (time.perf_counter() - began) / 60
    print(f"{seed - options.first} seeds, {steps} steps, {steps / minutes:,.0f} steps a minute: all invariants held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
