"""``tatin retry``: finished jobs again, as new ones."""

from __future__ import annotations

from tatin_jobs.cli.options import AsJson, JobsOrBatches
from tatin_jobs.cli.output import say, write_text
from tatin_jobs.cli.picking import Picked, pick
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.cli.submit import how_it_goes_on, print_submitted, tell_warnings
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
    tell_warnings(submitted, workers)
    if as_json:
        print_submitted(submitted, workers)
    else:
        write_text("".join(f"{job.id}\n" for job in submitted.jobs))
    say(how_it_goes_on(submitted, workers))


def _wanted(picked: Picked) -> bool:
    """Whether to retry it. Raises WrongState for a job named by its own id that is not finished."""
    job: Job = picked.job
    if picked.by_batch:
        return job.state is JobState.FINISHED and job.outcome is not Outcome.SUCCEEDED
    if job.state is not JobState.FINISHED:
        raise WrongState(f"Job '{job.id}' is {job.state} and cannot be retried.", try_=f"tatin cancel {job.id} first.")
    return True
