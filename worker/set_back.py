"""A store that came back with older files counts a job's attempts anew, and this host may have had that attempt before
(F26): its folder is there, and perhaps its sandbox still. Neither is used again: the job goes back, and its next
attempt has the next number."""

from __future__ import annotations

import logging

from tatin_jobs.errors import LeaseLost
from tatin_jobs.models import Lease
from tatin_jobs.results import read_result, write_result
from worker.context import Context
from worker.patience import ask

log = logging.getLogger(__name__)


async def given_back(context: Context, lease: Lease) -> bool:
    """Whether this attempt was on this host before, and its job has been given back for that.

    Raises:
        StoreUnavailable: it cannot be given back; its lease is left to a reaper.
    """
    folder = context.home.attempt(lease.job.id, lease.attempt)
    if not folder.exists():
        return False
    log.warning("action=give_back job=%s attempt=%d was here before", lease.job.id, lease.attempt)
    result = read_result(folder)
    if result is not None and result.accepted:
        write_result(folder, result.model_copy(update={"accepted": False}))
    message = f"Attempt {lease.attempt} was on host '{context.settings.worker_name}' before; the store was set back."
    try:
        await ask(
            context.settings.cut_off_seconds,
            context.store.requeue,
            lease,
            message=message,
            delay_seconds=0,
            counted=False,
        )
    except LeaseLost:
        pass  # somebody else has it
    return True
