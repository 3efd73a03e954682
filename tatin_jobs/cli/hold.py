"""``tatin hold``."""

from __future__ import annotations

from tatin_jobs.cli.options import JobsOrBatchesIfAny, Labels, WholeQueue
from tatin_jobs.cli.output import say
from tatin_jobs.cli.picking import check_picks, for_each, pick, pick_by_labels
from tatin_jobs.cli.session import open_session
from tatin_jobs.errors import EXIT_OK
from tatin_jobs.models import Job
from tatin_jobs.states import HeldFor, JobState


def command(ids: JobsOrBatchesIfAny = [], labels: Labels = [], queue: WholeQueue = False) -> int:  # noqa: B006
    """Hold waiting jobs until they are released: some, those of a label, or the whole queue.

    With --queue nothing more is claimed, jobs that come later included; what runs goes on.
    """
    check_picks(ids, labels, queue)
    with open_session() as session:
        store = session.store
        if queue:
            changed = store.hold_queue()
            say(f"the queue {'is' if changed else 'was already'} held; tatin release --queue")
            return EXIT_OK

        def hold(job: Job) -> str:
            store.hold(job.id)
            return f"{job.id}: held; tatin release {job.id}"

        picked = [*pick(store, ids), *pick_by_labels(store, labels)]
        return for_each(picked, hold, fits=_is_free)


def _is_free(job: Job) -> bool:
    return job.state is JobState.QUEUED or (job.state is JobState.HELD and job.held_for is not HeldFor.PERSON)
