"""``tatin release``."""

from __future__ import annotations

from tatin_jobs.cli.options import JobsOrBatches
from tatin_jobs.cli.picking import for_each, pick
from tatin_jobs.cli.session import open_session
from tatin_jobs.models import Job
from tatin_jobs.states import JobState


def command(ids: JobsOrBatches) -> int:
    """Queue held jobs now, whatever they are held for."""
    with open_session() as session:
        store = session.store

        def release(job: Job) -> str:
            store.release(job.id)
            return f"{job.id}: queued"

        return for_each(pick(store, ids), release, fits=lambda job: job.state is JobState.HELD)
