"""Machines that were being stopped to be kept when their worker was killed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tatin_jobs.models import Need
from worker import keeping
from worker.context import Lingering
from worker.journal import Entry, Journal
from worker.keeping import finish_keeping
from worker.kept import KeptNotes, note_of_job

NEED = Need(cpus=1, memory_mib=512, disk_mib=100)


def entry(number: int) -> Entry:
    return Entry(sandbox=f"tatin-0a1b2c3d-a{number}-1", job=f"job-{number}", attempt=1, token="t", need=NEED)


class Host:
    """A provider whose machines stop, but for those in ``stuck``; and the context of its worker."""

    kind = "qemu"

    def __init__(self, home: Home) -> None:
        self.stopped: list[str] = []
        self.stuck: set[str] = set()
        self.journal, self.notes = Journal(home.journal), KeptNotes(home.kept)
        self.context = cast(
            "Any", SimpleNamespace(home=home, provider=self, journal=self.journal, lingering=Lingering())
        )

    async def stop(self, name: str) -> None:
        if name in self.stuck:
            raise SandboxError("It does not end.")
        self.stopped.append(name)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    home = Home(tmp_path)
    home.prepare()
    return Host(home)


async def test_one_that_still_runs_is_stopped_and_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    running, ended, others = entry(1), entry(2), entry(3)
    monkeypatch.setattr(keeping, "is_running", lambda _, name: name == running.sandbox)
    for each in (running, ended, others):
        host.journal.write(each)
    for each in (running, ended):
        host.notes.add(note_of_job(each.sandbox, "qemu", each.job, NEED))
    await finish_keeping(host.context, host.journal.entries())
    assert host.stopped == [running.sandbox]
    assert host.journal.entries() == [others]
    assert {kept.sandbox for kept in host.notes.all()} == {running.sandbox, ended.sandbox}


async def test_one_that_does_not_end_is_left_to_the_sweep(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "is_running", lambda *_: True)
    host.stuck = {entry(1).sandbox}
    host.journal.write(entry(1))
    host.notes.add(note_of_job(entry(1).sandbox, "qemu", "job-1", NEED))
    await finish_keeping(host.context, host.journal.entries())
    assert host.notes.all() == []
    assert host.journal.entries() == [entry(1)]
