"""The exit code that stands for how a set of jobs ended."""

from __future__ import annotations

from collections.abc import Sequence

from tatin_jobs.errors import EXIT_CANCELLED, EXIT_FAILED, EXIT_HELD, EXIT_OK, EXIT_TIMED_OUT
from tatin_jobs.models import Job
from tatin_jobs.states import JobState, Outcome


def exit_code(jobs: Sequence[Job]) -> int:
    """1 when any failed or was lost, else 124, 75 or 130 when any timed out, is held or was cancelled, else 0."""
    outcomes = {job.outcome for job in jobs if job.state is JobState.FINISHED}
    if outcomes & {Outcome.FAILED, Outcome.LOST}:
        return EXIT_FAILED
    if Outcome.TIMED_OUT in outcomes:
        return EXIT_TIMED_OUT
    if any(job.state is JobState.HELD for job in jobs):
        return EXIT_HELD
    return EXIT_CANCELLED if Outcome.CANCELLED in outcomes else EXIT_OK


def all_over(jobs: Sequence[Job]) -> bool:
    """Whether nothing of these moves by itself any more."""
    return all(job.state is JobState.FINISHED for job in jobs)
