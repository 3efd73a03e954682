"""What ``prune`` removes: old finished jobs with their results, and blobs that no job names. Also the lock that keeps
blobs of a submit which is under way.

A blob is written before the job that names it is in the store. Whoever submits holds ``<home>/blobs/.lock`` shared
meanwhile; blobs are removed under the exclusive lock only.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tatin_jobs.home import Home
from tatin_jobs.models import Job, JobSpec
from tatin_jobs.results import attempt_folders, read_result, remove_folder
from tatin_jobs.states import JobState
from tatin_jobs.store import Store

ALL_JOBS = 10_000_000
"""More than any store holds: a limit for questions about all of them."""
_BLOB = re.compile(r"[0-9a-f]{64}")
_GOING = ".going-"
"""Before the id of a job whose results are being removed: of a prune that was killed, the next removes the rest."""
_DRAFTS = ".new-*"
"""Of blobs, and of repositories that become some: while no submit is under way, of one that was killed."""


@dataclass(frozen=True)
class Pruned:
    """What went, or would go: ids of jobs, folders of results, blobs (also halves of some, which a killed submit left),
    and how many bytes these hold."""

    jobs: tuple[str, ...]
    folders: tuple[Path, ...]
    blobs: tuple[Path, ...]
    size_bytes: int


@contextmanager
def blobs_kept(home: Home) -> Iterator[None]:
    """No blob goes while this is held; many may hold it."""
    with _lock_file(home).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def _blobs_alone(home: Home) -> Iterator[None]:
    with _lock_file(home).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock_file(home: Home) -> Path:
    return home.blobs / ".lock"


def blobs_of(spec: JobSpec) -> frozenset[str]:
    """Every blob that this job names."""
    named = {item.blob for item in spec.inputs}
    return frozenset(named | {blob for blob in (spec.prompt_blob, spec.repo.blob) if blob})


def prune(store: Store, home: Home, *, before: datetime, dry_run: bool) -> Pruned:
    """Remove what finished before ``before``: results on this host, then the records, then blobs that nothing names.

    Results of a job that the store does not know (it was emptied) go by their own ``result.json``. What a killed
    prune had begun to remove goes as well. Nothing of a job that is queued, held or running is touched; while the store
    has records that this Tatin cannot read (a newer one's), only what is surely old goes, since such a record may name
    any blob.

    Raises:
        OSError: a folder cannot be removed; the records of its job are kept, and the next prune goes on with it.
    """
    jobs = _all_jobs(store)
    old = [job for job in jobs.read if _is_old(job, before)]
    known = {job.id for job in jobs.read}
    strays = _stray_folders(home, known) if jobs.complete else []
    stray = [name for name in strays if _finished_before(home, name, before)]
    going = sorted(home.jobs.glob(f"{_GOING}*"))
    names = [job.id for job in old] + stray
    folders = (*going, *(path for name in names if (path := home.jobs / name).is_dir()))
    size = sum(map(_size_of, folders))
    if not dry_run:
        for folder in folders:
            remove_folder(folder, _GOING)
        store.forget([job.id for job in old])
        store.forget_empty_batches({job.batch for job in old})
    with _blobs_alone(home):
        gone = {job.id for job in old}
        jobs = _all_jobs(store)
        blobs = _unnamed(home, (job for job in jobs.read if job.id not in gone)) if jobs.complete else ()
        blobs = (*blobs, *sorted(home.blobs.glob(_DRAFTS)))
        size += sum(map(_size_of, blobs))
        if not dry_run:
            _remove_blobs(home, blobs)
    return Pruned(tuple(job.id for job in old), folders, blobs, size)


def drop_new_blobs(store: Store, home: Home, known: frozenset[str]) -> None:
    """After a submit that failed: remove the blobs that came since ``known`` and that no job names."""
    if present_blobs(home) <= known:
        return
    with _blobs_alone(home):
        jobs = _all_jobs(store)
        if jobs.complete:
            _remove_blobs(home, [path for path in _unnamed(home, jobs.read) if path.name not in known])


def present_blobs(home: Home) -> frozenset[str]:
    """The names of the blobs that are there."""
    return frozenset(name for name in os.listdir(home.blobs) if _BLOB.fullmatch(name))


@dataclass(frozen=True)
class _AllJobs:
    """Every job that could be read, and whether that is all of them."""

    read: list[Job]
    complete: bool


def _all_jobs(store: Store) -> _AllJobs:
    before = sum(store.counts().values())
    read = store.list_jobs(limit=ALL_JOBS)
    return _AllJobs(read, len(read) >= max(before, sum(store.counts().values())))


def _unnamed(home: Home, jobs: Iterable[Job]) -> tuple[Path, ...]:
    named = frozenset().union(*(blobs_of(job.spec) for job in jobs))
    return tuple(home.blobs / name for name in sorted(present_blobs(home) - named))


def _remove_blobs(home: Home, blobs: Iterable[Path]) -> None:
    """Blobs, and the notes that say which blob is the pack of a local repository, once that is gone."""
    for path in blobs:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    left = present_blobs(home)
    for note in home.blobs.glob(".repo-*"):
        if note.read_text(errors="replace").strip() not in left:
            note.unlink(missing_ok=True)


def _is_old(job: Job, before: datetime) -> bool:
    return job.state is JobState.FINISHED and job.finished_at is not None and job.finished_at < before


def _stray_folders(home: Home, known: set[str]) -> list[str]:
    return sorted(name for name in set(os.listdir(home.jobs)) - known if not name.startswith(_GOING))


def _finished_before(home: Home, name: str, before: datetime) -> bool:
    results = [read_result(folder) for _, folder in attempt_folders(home, name)]
    return bool(results) and all(result is not None and result.finished_at < before for result in results)


def _size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    size = 0 if path.is_dir() else path.stat().st_size
    for parent, _, files in os.walk(path):
        for name in files:
            size += os.lstat(os.path.join(parent, name)).st_size
    return size
