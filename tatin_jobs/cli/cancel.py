"""``tatin cancel``."""

from __future__ import annotations

from tatin_jobs.cli.options import JobsOrBatches
from tatin_jobs.cli.picking import for_each, pick
from tatin_jobs.cli.session import open_session
from tatin_jobs.models import Job
from tatin_jobs.states import JobState


def command(ids: JobsOrBatches) -> int:
    """Cancel jobs. A waiting one is over at once; a running one is stopped, and what it has is collected."""
    with open_session() as session:
        store = session.store

        def cancel(job: Job) -> str:
            after = store.cancel(job.id)
            return f"{job.id}: {'cancelled' if after.state is JobState.FINISHED else 'is being stopped'}"

        return for_each(pick(store, ids), cancel, fits=lambda job: job.state is not JobState.FINISHED)
