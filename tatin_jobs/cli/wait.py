"""``tatin wait``: until jobs are over; the exit code says how they ended."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

import typer

from tatin_jobs.cli.jobs_view import job_json, one_line
from tatin_jobs.cli.options import AsJson, JobsOrBatches
from tatin_jobs.cli.outage import Outage
from tatin_jobs.cli.outcomes import all_over, exit_code
from tatin_jobs.cli.output import print_json, say
from tatin_jobs.cli.picking import pick
from tatin_jobs.cli.session import open_session
from tatin_jobs.errors import EXIT_HELD, EXIT_TIMED_OUT, BadInput
from tatin_jobs.models import Job
from tatin_jobs.states import HeldFor, JobState
from tatin_jobs.store import Store
from tatin_jobs.units import parse_duration

LOOK_SECONDS = 2.0


def command(
    ids: JobsOrBatches,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="Wait at most this long, as 90s, 45m or 2h.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Wait until jobs are finished.

    Or held by a person. The exit code says how they ended.
    """
    seconds = _seconds(timeout)
    with open_session() as session:
        wanted = [picked.job.id for picked in pick(session.store, ids)]
        jobs, in_time = wait_for(session.store, wanted, seconds)
    if as_json:
        print_json({"jobs": [job_json(job) for job in jobs], "in_time": in_time})
    if in_time:
        return exit_code(jobs)
    waiting = [job for job in jobs if job.state is not JobState.FINISHED]
    say(f"{len(waiting)} of {len(jobs)} are not over after {timeout}")
    return EXIT_HELD if all(job.state is JobState.HELD for job in waiting) else EXIT_TIMED_OUT


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise BadInput(f"--timeout: {error}.") from error


def wait_for(store: Store, job_ids: list[str], seconds: float | None) -> tuple[list[Job], bool]:
    """(the jobs, whether nothing of them moves by itself any more); says each end on stderr as it comes."""
    deadline = None if seconds is None else time.monotonic() + seconds
    cursor, _ = store.changes("$", 0)  # from before the first look, so that no move falls between
    told: set[str] = set()
    outage = Outage(lambda: deadline is not None and time.monotonic() > deadline)
    while True:
        jobs = outage.ask(lambda: store.jobs(job_ids))
        for job in jobs:
            if job.state is JobState.FINISHED and job.id not in told:
                told.add(job.id)
                say(one_line(job))
        if all_over([job for job in jobs if not _held_for_good(job)]):
            for job in filter(_held_for_good, jobs):
                say(f"{one_line(job)} (tatin release {job.id})")
            return jobs, True
        left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return jobs, False
        cursor = outage.ask(partial(store.changes, cursor, max(0.01, min(left, LOOK_SECONDS))))[0]


def _held_for_good(job: Job) -> bool:
    return job.state is JobState.HELD and job.held_for is HeldFor.PERSON
