"""From the ids that a person typed to jobs, and doing something to each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tatin_jobs.cli.output import say
from tatin_jobs.errors import EXIT_OK, BadInput, TatinError, UnknownId
from tatin_jobs.models import Batch, Job
from tatin_jobs.states import JobState
from tatin_jobs.store import Store

MAX_LABELLED = 100_000
"""Waiting jobs that are looked at for a label."""


@dataclass(frozen=True)
class Picked:
    """A job that was asked for. ``by_batch``: not by its own id, but with the others of its batch."""

    job: Job
    by_batch: bool


def pick(store: Store, ids: Sequence[str]) -> list[Picked]:
    """The jobs that these ids or their beginnings name, each once; a batch stands for its jobs.

    Raises:
        UnknownId, AmbiguousId: one of them; then nothing has been done to any.
    """
    found: dict[str, Picked] = {}
    for text in ids:
        named = store.resolve_any(text)
        if isinstance(named, Batch):
            for job in store.jobs(named.jobs):
                found.setdefault(job.id, Picked(job, by_batch=True))
        else:
            found[named.id] = Picked(named, by_batch=False)
    return list(found.values())


def check_picks(ids: Sequence[str], labels: Sequence[str], queue: bool, account: str | None = None) -> None:
    """Exactly one way of saying which jobs. Raises BadInput."""
    ways = [bool(ids), bool(labels), queue, account is not None]
    if sum(ways) != 1:
        seen = "more than one of them" if any(ways) else "none of them"
        raise BadInput("Name jobs by ids, by --label, or all by --queue.", seen=seen)


def pick_by_labels(store: Store, labels: Sequence[str]) -> list[Picked]:
    """The waiting jobs that have all these labels (``key=value``), as if named by their batch.

    Raises:
        BadInput: a label is not written so. UnknownId: no waiting job has them.
    """
    wanted = [_label(text) for text in labels]
    if not wanted:
        return []
    waiting = store.list_jobs(states=[JobState.QUEUED, JobState.HELD], limit=MAX_LABELLED)
    found = [job for job in waiting if all(job.spec.labels.get(key) == value for key, value in wanted)]
    if not found:
        raise UnknownId(f"No waiting job has the label {', '.join(labels)!r}.", try_="tatin list --json | jq .jobs")
    return [Picked(job, by_batch=True) for job in found]


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"{text[:80]!r} is no label.", try_="--label team=infra")
    return key, value


def for_each(jobs: Sequence[Picked], act: Callable[[Job], str], *, fits: Callable[[Job], bool]) -> int:
    """Do ``act`` to each job and say what it answers; the exit code of the first that failed.

    Of a batch, the jobs that do not fit (finished, where only waiting ones can be held) are passed over: who cancels a
    batch means what is left of it. A job named by its own id is tried, and refused by the store with its reason.
    """
    code = EXIT_OK
    for picked in jobs:
        if picked.by_batch and not fits(picked.job):
            continue
        try:
            say(act(picked.job))
        except TatinError as error:
            say(str(error))
            code = code or error.exit_code
    return code
