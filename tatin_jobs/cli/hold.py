"""``tatin hold``."""

from __future__ import annotations

from tatin_jobs.cli.options import JobsOrBatches
from tatin_jobs.cli.picking import for_each, pick
from tatin_jobs.cli.session import open_session
from tatin_jobs.models import Job
from tatin_jobs.states import JobState


def command(ids: JobsOrBatches) -> int:
    """Hold waiting jobs until they are released."""
    with open_session() as session:
        store = session.store

        def hold(job: Job) -> str:
            store.hold(job.id)
            return f"{job.id}: held; tatin release {job.id}"

        waiting = (JobState.QUEUED, JobState.HELD)
        return for_each(pick(store, ids), hold, fits=lambda job: job.state in waiting)
