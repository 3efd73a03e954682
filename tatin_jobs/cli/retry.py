"""``tatin retry``: finished jobs again, as new ones."""

from __future__ import annotations

from tatin_jobs.cli.options import AsJson, JobsOrBatches
from tatin_jobs.cli.output import say
from tatin_jobs.cli.picking import Picked, pick
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.cli.submit import tell_submitted
from tatin_jobs.errors import WrongState
from tatin_jobs.models import Job
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.submitting import live_workers, submit_again


def command(ids: JobsOrBatches, as_json: AsJson = False) -> None:
    """Run finished jobs again, as a new batch.

    Of a batch, those that did not succeed.
    """
    with open_session() as session:
        jobs = [picked.job for picked in pick(session.store, ids) if _wanted(picked)]
        if not jobs:
            say("nothing to retry: every job of it succeeded or is not over")
            return
        submitted = submit_again(session.store, jobs, now())
        workers = live_workers(session.store)
    tell_submitted(submitted, workers, as_json)


def _wanted(picked: Picked) -> bool:
    """Whether to retry it. Raises WrongState for a job named by its own id that is not finished."""
    job: Job = picked.job
    if picked.by_batch:
        return job.state is JobState.FINISHED and job.outcome is not Outcome.SUCCEEDED
    if job.state is not JobState.FINISHED:
        raise WrongState(f"Job '{job.id}' is {job.state} and cannot be retried.", try_=f"tatin cancel {job.id} first.")
    return True
