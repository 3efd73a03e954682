"""From job files to records in the store: one submit is one batch, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from tatin_jobs.blobs import Blobs
from tatin_jobs.dependencies import needed_ids
from tatin_jobs.errors import BadInput, TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import Batch, Job, JobSpec, Need, Offer, Repo, WorkerInfo
from tatin_jobs.names import batch_id, job_id
from tatin_jobs.needs import at_once, granted
from tatin_jobs.pruning import blobs_kept, blobs_of, drop_new_blobs, present_blobs
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store
from tatin_jobs.terminal import clean_line
from tatin_jobs.units import format_size

if TYPE_CHECKING:
    from tatin_jobs.spec import ReadJob

TRAVELLING_LIMIT_BYTES = 16 * 2**20
"""What a job's blobs may hold in all where the store is shared: there is no shared place for them yet."""


@dataclass(frozen=True)
class Submitted:
    """A batch that is in the store, its jobs in the order of the files, and what a person should know about them."""

    batch: Batch
    jobs: tuple[Job, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class JobFiles:
    """What to read: paths (``-``: stdin), ``key=value`` overrides, and the submitter's environment for ``${VAR}``."""

    paths: Sequence[str]
    overrides: Sequence[str] = ()
    environ: Mapping[str, str] | None = None

    def read(self, settings: Settings, blobs: Blobs, now: datetime) -> list[ReadJob]:
        """Every job of every file. Raises BadJobFile, with all that is wrong in all of them."""
        from tatin_jobs.spec import read_jobs

        environ = os.environ if self.environ is None else self.environ
        return read_jobs(
            list(self.paths),
            environ=environ,
            overrides=list(self.overrides),
            settings=settings,
            blobs=blobs,
            now=now,
        )


def submit_files(
    store: Store,
    settings: Settings,
    home: Home,
    files: JobFiles,
    now: datetime,
    *,
    check: Callable[[Sequence[ReadJob]], None] = lambda _: None,
) -> Submitted:
    """Read the files and submit their jobs as one batch. A submit that fails leaves nothing, neither record nor blob.

    Raises:
        BadJobFile: a file is wrong. BadInput: what a job brings along cannot travel, or what it needs is no job.
            StoreUnavailable. And whatever ``check`` raises, which is called with all that was read before anything is
            recorded.
    """
    home.prepare()
    known = present_blobs(home)
    try:
        with blobs_kept(home):
            read = files.read(settings, Blobs(home.blobs), now)
            _check_travel(settings, home, read)
            check(read)
            specs = [(item.spec, item.need) for item in read]
            needs = partial(needed_ids, store, [item.spec for item in read])
            batch, jobs = _records(specs, now, source=", ".join(files.paths), needs=needs)
            store.submit(batch, jobs)
    except BaseException:
        _drop(store, home, known)
        raise
    warnings = [f"{item.source}: {text}" for item in read for text in item.warnings]
    return Submitted(batch, tuple(jobs), (*warnings, *_travel_warnings(settings, jobs)))


def submit_again(store: Store, jobs: Sequence[Job], now: datetime) -> Submitted:
    """Submit the same specs again as a new batch; each new job names the one that it retries. ``not_before`` of the
    past is past; what needed another of them needs its new one."""
    pairs = [(_again(job.spec, now), job.need) for job in jobs]
    known = {job.id for job in store.jobs({needed for job in jobs for needed in job.needs})}
    retry_of = [job.id for job in jobs]

    def needs(ids: Sequence[str]) -> list[tuple[str, ...]]:
        new_of = dict(zip(retry_of, ids, strict=True))
        return [tuple(new_of.get(one, one) for one in job.needs if one in known) for job in jobs]

    batch, new = _records(pairs, now, source="tatin retry", needs=needs, retry_of=retry_of)
    store.submit(batch, new)
    return Submitted(batch, tuple(new), ())


def _again(spec: JobSpec, now: datetime) -> JobSpec:
    """A deadline of the past is past: it would end the new job at once."""
    return spec.model_copy(update={"deadline": None}) if spec.deadline and spec.deadline <= now else spec


def _records(
    specs: Sequence[tuple[JobSpec, Need]],
    now: datetime,
    *,
    source: str,
    needs: Callable[[Sequence[str]], Sequence[tuple[str, ...]]],
    retry_of: Sequence[str] = (),
) -> tuple[Batch, list[Job]]:
    """The batch and its jobs; ``needs`` tells what each waits for, of the ids that they got."""
    batch = batch_id()
    ids = [job_id(spec.name) for spec, _ in specs]
    waits = needs(ids)
    jobs = []
    for index, (spec, need) in enumerate(specs):
        later = spec.not_before if spec.not_before and spec.not_before > now else None
        jobs.append(
            Job(
                id=ids[index],
                batch=batch,
                spec=spec,
                need=need,
                state=JobState.HELD if later or waits[index] else JobState.QUEUED,
                held_until=later,
                message=_why_held(later, waits[index]),
                needs=waits[index],
                retry_of=retry_of[index] if retry_of else None,
                created_at=now,
            )
        )
    return Batch(id=batch, created_at=now, jobs=tuple(ids), source=source[:1000]), jobs


def _why_held(later: datetime | None, needs: Sequence[str]) -> str:
    if needs:
        shown = ", ".join(needs[:3]) + (f" and {len(needs) - 3} more" if len(needs) > 3 else "")
        return f"Held until {shown} succeeded."
    return f"Held until {later:%Y-%m-%d %H:%M} UTC (not_before)." if later else ""


def _check_travel(settings: Settings, home: Home, read: Sequence[ReadJob]) -> None:
    if settings.redis_url is None:
        return
    blobs = Blobs(home.blobs)
    for item in read:
        size = sum(blobs.path(blob).stat().st_size for blob in blobs_of(item.spec))
        if size > TRAVELLING_LIMIT_BYTES:
            raise BadInput(
                f"Job '{item.spec.name}' of {item.source} brings {format_size(size)} along; with a shared Redis"
                f" {format_size(TRAVELLING_LIMIT_BYTES)} is the most.",
                seen="its local repository, inputs and long prompt, and TATIN_REDIS_URL is set",
                try_="name the repository by an address that the workers can fetch, or submit without TATIN_REDIS_URL.",
            )


def _travel_warnings(settings: Settings, jobs: Sequence[Job]) -> list[str]:
    names = [job.spec.name for job in jobs if blobs_of(job.spec)]
    if settings.redis_url is None or not names:
        return []
    shown = ", ".join(dict.fromkeys(names))
    return [f"{shown}: a local repository, inputs or a long prompt stay on this host; only its worker can run this."]


def _drop(store: Store, home: Home, known: frozenset[str]) -> None:
    try:
        drop_new_blobs(store, home, known)
    except (TatinError, OSError):
        pass  # a store that is away cannot say what is named; prune finds them


# How many run at once


def live_workers(store: Store) -> list[WorkerInfo]:
    """The workers that announce themselves."""
    return [info for info in store.workers() if not store.is_silent(info)]


def default_need(settings: Settings) -> Need:
    """What a job takes that names no resources."""
    from tatin_jobs.spec import need_of

    return need_of(JobSpec(name="default", repo=Repo(), tool="command"), settings)


def at_once_range(needs: Sequence[Need], workers: Sequence[WorkerInfo]) -> tuple[int, int]:
    """(fewest, most) jobs of one of these needs that all these workers run at once."""
    takers = [info.offer for info in workers if not info.draining and not info.problem]
    totals = [sum(at_once(need, offer) for offer in takers) for need in set(needs)]
    return min(totals, default=0), max(totals, default=0)


def take_nothing(workers: Sequence[WorkerInfo]) -> list[str]:
    """A line for each worker that claims nothing, with why."""
    return [f"worker '{info.name}' takes nothing: {clean_line(info.problem)}" for info in workers if info.problem]


def why_never(need: Need, workers: Sequence[WorkerInfo]) -> str | None:
    """Why no worker that is known can ever run this; None when one can, or when none is known."""
    if not workers or any(at_once(need, info.offer) for info in workers):
        return None
    reasons = [f"'{info.name}' {_lacks(need, info.offer)}" for info in workers[:3]]
    return "no worker that runs now can take it: " + "; ".join(reasons)


def _lacks(need: Need, offer: Offer) -> str:
    if missing := sorted(set(need.tags) - set(offer.tags)):
        return f"has not {', '.join(missing)}"
    part = granted(need, offer)
    if part.cpus > offer.cpus:
        return f"offers {offer.cpus} CPUs of {part.cpus}"
    if part.memory_mib > offer.memory_mib:
        return f"offers {offer.memory_mib} MiB of memory of {part.memory_mib}"
    if part.disk_mib > offer.disk_mib:
        return f"offers {offer.disk_mib} MiB of disk of {part.disk_mib}"
    return "offers no slots"
