"""The host is kept awake while attempts run, and no longer."""

from __future__ import annotations

import subprocess
import sys

from tests.support.wait import has_ended, until
from worker.awake import Awake, works

UNTIL_CLOSED = ("sh", "-c", "read -r _")


def test_it_is_held_while_wanted() -> None:
    awake = Awake(UNTIL_CLOSED)
    awake.hold(True)
    awake.hold(True)
    assert awake.is_held
    awake.hold(False)
    assert not awake.is_held
    awake.close()


def test_one_that_ended_is_had_again() -> None:
    awake = Awake(("true",))
    awake.hold(True)
    until(lambda: not awake.is_held)
    awake.hold(True)
    awake.close()


def test_a_host_without_the_program_works_all_the_same() -> None:
    awake = Awake(("no-such-program-here",))
    awake.hold(True)
    awake.hold(True)
    assert not awake.is_held
    Awake(()).hold(True)


def test_it_does_not_outlive_its_worker() -> None:
    program = (
        "import os, sys; from worker.awake import Awake; awake = Awake(('sh', '-c', 'read -r _'));"
        "awake.hold(True); print(awake._child.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=30)
    until(lambda: has_ended(int(done.stdout)))


def test_whether_it_works_is_tried() -> None:
    assert works(UNTIL_CLOSED) is None
    assert works(("sh", "-c", "echo 'Failed to connect to bus' >&2; exit 1")) == "Failed to connect to bus"
    assert works(("no-such-program-here",))
