"""State: behaviours 7 to 10."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.tart import Tart, ended
from tests.support.wait import until


def test_state_is_a_lock_that_goes_with_its_process(tart: Tart) -> None:
    """7, 8"""
    process = tart.run("base")
    assert tart.state("base") == "running"
    assert not [file for file in (tart.home / "vms" / "base").iterdir() if file.suffix == ".pid"]
    process.kill()
    process.wait()
    assert tart.state("base") == "stopped"


def test_it_runs_before_its_guest_answers(dials: Tart) -> None:
    """8"""
    dials.dial(lease_after=30)
    dials.run("base")
    assert dials.state("base") == "running"
    assert dials("ip", "base").returncode == 1


def test_many_looks_do_not_take_the_lock_away(tart: Tart) -> None:
    """7"""
    tart.run("base")
    for _ in range(5):
        assert tart.good("get", "base", "--format", "json")
        assert tart.state("base") == "running"


def test_a_saved_state_is_suspended_and_stop_forgets_it(tart: Tart) -> None:
    """9"""
    saved = tart.home / "vms" / "base" / "state.vzvmsave"
    saved.write_bytes(b"state")
    assert tart.state("base") == "suspended"
    assert tart("stop", "base").returncode == 0
    assert not saved.exists()
    assert tart.state("base") == "stopped"


def test_it_works_from_anywhere_and_many_at_once(tart: Tart, tmp_path: Path) -> None:
    """10"""
    (tmp_path / "elsewhere").mkdir()
    assert tart("list", "-q", cwd=tmp_path / "elsewhere").stdout == "base\n"
    clones = [tart.begin("clone", "base", f"c{number}") for number in range(6)]
    assert [ended(clone)[0] for clone in clones] == [0] * 6
    assert {row["Name"] for row in tart.rows()} == {"base", *(f"c{number}" for number in range(6))}


def test_clones_wait_for_the_lock_of_the_home(dials: Tart) -> None:
    """10: without a limit"""
    dials.dial(clone_hangs=2)
    first = dials.begin("clone", "base", "slow")
    until(lambda: any((dials.home / "tmp").iterdir()))
    dials.dial(clone_hangs=0)
    second = dials.begin("clone", "base", "quick")
    assert ended(first)[0] == 0
    assert ended(second)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_any_death_it_can_be_deleted(tart: Tart, number: signal.Signals) -> None:
    """8"""
    process = tart.run("base")
    os.kill(process.pid, number)
    assert ended(process)[0] == -number
    tart.good("delete", "base")
