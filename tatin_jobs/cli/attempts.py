"""The attempts of a job whose results lie in this home, and which of them a person means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import BadInput, PartMissing, WrongState
from tatin_jobs.home import Home
from tatin_jobs.models import Job
from tatin_jobs.results import Result, attempt_folders, read_result
from tatin_jobs.states import JobState


@dataclass(frozen=True)
class StoredAttempt:
    """One attempt's folder. ``result`` is None while it runs, or when its worker died before it was written."""

    number: int
    folder: Path
    result: Result | None


def stored_attempts(home: Home, job_id: str) -> list[StoredAttempt]:
    """Those on this host, oldest first."""
    return [StoredAttempt(number, folder, read_result(folder)) for number, folder in attempt_folders(home, job_id)]


def meant_attempt(home: Home, job: Job, number: int | None = None) -> StoredAttempt:
    """The attempt with this number; without one the newest that decided the job, else the newest.

    Raises:
        WrongState: the job has not run yet. BadInput: there is no attempt of this number here.
        PartMissing: its results are on another host, or were pruned.
    """
    found = stored_attempts(home, job.id)
    if number is not None:
        for attempt in found:
            if attempt.number == number:
                return attempt
        here = ", ".join(str(attempt.number) for attempt in found) or "none"
        raise BadInput(f"Attempt {number} of job '{job.id}' is not here.", seen=f"attempts here: {here}")
    if found:
        accepted = [attempt for attempt in found if attempt.result and attempt.result.accepted]
        return (accepted or found)[-1]
    if job.attempt == 0:
        raise WrongState(f"Job '{job.id}' has no results: it has not run.", try_=f"tatin show {job.id}")
    if job.state is not JobState.FINISHED:
        raise WrongState(f"Job '{job.id}' has no results here yet.", try_=f"tatin logs {job.id} -f")
    folder = job.summary.folder if job.summary and job.summary.folder else f"{home.jobs / job.id}"
    raise PartMissing(
        f"The results of job '{job.id}' are not on this host.",
        seen=f"worker '{job.worker}' left them in {folder}",
        try_="run this on that worker's host; results that were pruned are gone.",
    )
