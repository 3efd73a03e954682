"""Notes of machines that stay: who may be swept, and when."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import Need, Offer
from tatin_jobs.states import Outcome
from worker.journal import Entry, Journal
from worker.kept import KEPT_FOR, Kept, KeptNotes, is_kept, note_of_job, over_memory, taken_by_kept
from worker.sandboxes.host_process import HostProcess

NEED = Need(cpus=1, memory_mib=2000, disk_mib=3000)
NOW = datetime(2026, 3, 4, tzinfo=UTC)


def _kept(number: int, job: str = "job", until: datetime | None = NOW + timedelta(hours=1)) -> Kept:
    made_at = NOW + timedelta(seconds=number)
    return Kept(sandbox=f"tatin-0a1b2c3d-a{number}-1", kind="qemu", job=job, made_at=made_at, until=until)


def test_a_note_keeps_its_machine_until_its_time_is_over(tmp_path: Path) -> None:
    notes = KeptNotes(tmp_path / "kept")
    notes.add(_kept(1, until=NOW))
    assert notes.names(NOW - timedelta(seconds=1)) == {"tatin-0a1b2c3d-a1-1"}
    assert notes.names(NOW) == set()
    assert notes.all() == []


def test_of_jobs_machines_the_newest_three_stay_and_a_persons_own_do_not_count(tmp_path: Path) -> None:
    notes = KeptNotes(tmp_path / "kept")
    notes.add(_kept(0, job="", until=None))
    for number in range(1, 6):
        notes.add(_kept(number))
    assert notes.names(NOW) == {f"tatin-0a1b2c3d-a{number}-1" for number in (0, 3, 4, 5)}


def test_a_note_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    notes = KeptNotes(tmp_path)
    (tmp_path / "x.json").write_text("{")
    notes.add(_kept(1))
    notes.add(_kept(1))
    assert len(notes.all()) == 1
    notes.remove(_kept(1).sandbox)
    notes.remove(_kept(1).sandbox)
    assert notes.all() == []


def test_a_jobs_note_ends() -> None:
    kept = note_of_job("tatin-0a1b2c3d-a1-1", "qemu", "job-1", NEED)
    assert kept.until == kept.made_at + KEPT_FOR


class Machine(HostProcess):
    program = "sleep"
    log_name = "sleep.log"


async def test_a_machine_takes_its_disk_while_it_is_there_and_the_rest_while_it_runs(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    kept = note_of_job("tatin-0a1b2c3d-a1-1", "qemu", "job-1", NEED)
    KeptNotes(home.kept).add(kept)
    assert taken_by_kept(home) == [], "it is not there"
    folder = home.sandboxes / kept.sandbox
    folder.mkdir()
    (asleep,) = taken_by_kept(home)
    assert (asleep.cpus, asleep.memory_mib, asleep.disk_mib, asleep.slots) == (0, 0, 3000, 0)
    machine = await Machine.spawn(kept.sandbox, folder, ["sleep", "600"], {"PATH": os.defpath})
    try:
        (awake,) = taken_by_kept(home)
        assert (awake.cpus, awake.memory_mib, awake.disk_mib, awake.slots) == (1, 2000, 3000, 0)
        assert taken_by_kept(home, besides=[kept.sandbox]) == []
    finally:
        await machine.kill()
    assert taken_by_kept(home) == [asleep]


def test_less_memory_than_a_machine_may_use_beside_the_jobs_that_run_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    kept = note_of_job("tatin-0a1b2c3d-a1-1", "qemu", "job-1", NEED)
    offer = Offer(cpus=4, memory_mib=5000, disk_mib=50_000, slots=4)
    entry = Entry(sandbox="tatin-0a1b2c3d-a2-1", job="job-2", attempt=1, token="t", need=NEED)
    Journal(home.journal).write(entry)
    assert over_memory(home, offer, kept) is None
    wish = Need(memory_mib=8192, memory_wish=True)
    Journal(home.journal).write(entry.model_copy(update={"need": wish}))
    seen = over_memory(home, offer, kept)
    assert seen is not None
    assert "2000 MiB of memory, and 5000 of the 5000 MiB" in seen


@pytest.mark.parametrize(
    ("keep", "outcome", "stays"),
    [
        ("never", Outcome.FAILED, False),
        ("always", Outcome.SUCCEEDED, True),
        ("on-failure", Outcome.SUCCEEDED, False),
        ("on-failure", Outcome.FAILED, True),
        ("on-failure", Outcome.TIMED_OUT, True),
        ("on-failure", Outcome.CANCELLED, False),
    ],
)
def test_when_a_job_keeps_its_machine(keep: str, outcome: Outcome, stays: bool) -> None:
    assert is_kept(keep, outcome) is stays
