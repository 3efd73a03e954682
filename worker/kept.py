"""Virtual machines that stay when nobody runs them: kept by a job's ``keep``, or a person's own (``tatin up``).

    <home>/kept/<sandbox>.json   one note each, written before the machine is made or left

What has a note is swept by no worker until its time is over. Machines of jobs are stopped; three of them at most, then
the oldest goes. A worker of the home counts what they take: their disk while they are there, memory and CPUs while they
run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from tatin_jobs.home import Home
from tatin_jobs.models import Frozen, Need, Offer
from tatin_jobs.needs import granted
from tatin_jobs.states import Outcome
from tatin_jobs.store import Standing
from worker.journal import Journal
from worker.sandboxes.host_process import HostProcess

KEPT_JOBS = 3
KEPT_FOR = timedelta(days=1)


class Kept(Frozen):
    """``until`` None: until somebody deletes it. ``job`` is empty for a person's own. ``need``: how large it is."""

    sandbox: str
    kind: str
    job: str = ""
    name: str = ""
    made_at: datetime
    until: datetime | None = None
    need: Need | None = None


class KeptNotes:
    """The notes of one home; a file each, so that a worker and the commands need no lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, kept: Kept) -> None:
        """Note it; replaces an earlier note."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{kept.sandbox}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(kept.model_dump_json())
        draft.replace(path)

    def remove(self, sandbox: str) -> None:
        """Forget it: the next sweep destroys what is left. Safe to call twice."""
        (self._folder / f"{sandbox}.json").unlink(missing_ok=True)

    def all(self) -> Sequence[Kept]:
        """The notes that can be read, oldest first."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                found.append(Kept.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError):
                continue
        return sorted(found, key=lambda kept: kept.made_at)

    def names(self, now: datetime) -> set[str]:
        """Sandboxes that no sweep may touch; notes that are over, or of jobs beyond the newest three, are removed."""
        notes = self.all()
        jobs = [kept for kept in notes if kept.job]
        over = {kept.sandbox for kept in jobs[: max(0, len(jobs) - KEPT_JOBS)]}
        over |= {kept.sandbox for kept in notes if kept.until and kept.until <= now}
        for sandbox in over:
            self.remove(sandbox)
        return {kept.sandbox for kept in notes} - over


def note_of_job(sandbox: str, kind: str, job: str, need: Need) -> Kept:
    """The note for a job's machine that is left from now on."""
    now = datetime.now(UTC)
    return Kept(sandbox=sandbox, kind=kind, job=job, made_at=now, until=now + KEPT_FOR, need=need)


def is_running(home: Home, sandbox: str) -> bool:
    """Whether its machine has a process on this host."""
    return HostProcess.find(sandbox, home.sandboxes / sandbox)[0] is not None


def taken_by_kept(home: Home, besides: Collection[str] = ()) -> list[Standing]:
    """What the machines take that are there, for the claim; those in ``besides`` are counted by somebody else."""
    found = []
    for kept in KeptNotes(home.kept).all():
        if kept.need is None or kept.sandbox in besides or not (home.sandboxes / kept.sandbox).is_dir():
            continue
        asleep = {} if is_running(home, kept.sandbox) else {"cpus": 0, "memory_mib": 0}
        found.append(Standing(**{**kept.need.model_dump(), **asleep}))
    return found


def over_memory(home: Home, offer: Offer, kept: Kept) -> str | None:
    """That less memory is given here than this machine and what runs take together, in words; None when it is enough.

    A person's machine starts all the same: waiting for jobs that take hours is no answer to somebody at a terminal.
    """
    if kept.need is None:
        return None
    entries = Journal(home.journal).entries()
    others = taken_by_kept(home, besides=[kept.sandbox, *(entry.sandbox for entry in entries)])
    taken = sum(granted(entry.need, offer).memory_mib for entry in entries) + sum(one.memory_mib for one in others)
    if taken + kept.need.memory_mib <= offer.memory_mib:
        return None
    return (
        f"this machine may use {kept.need.memory_mib} MiB of memory, and {taken} of the {offer.memory_mib} MiB that"
        " this host gives are taken: when all is used at once, the system may end a job. The worker takes no job while"
        " there is no room."
    )


def is_kept(keep: str, outcome: Outcome | None) -> bool:
    """Whether a job that ended so keeps its machine."""
    return keep == "always" or (keep == "on-failure" and outcome not in (Outcome.SUCCEEDED, Outcome.CANCELLED))
