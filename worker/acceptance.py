"""Have the store accept how an attempt ended: once, under its token, waiting for a store that is away (F20)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from tatin_jobs.errors import Forgotten, LeaseLost, StoreUnavailable
from tatin_jobs.models import AttemptSummary, Lease
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tatin_jobs.store import Store
from worker.control import Control, Stop
from worker.ending import Ending, Fate, backoff_seconds, fate
from worker.holds import tell_limit, tell_route

PATIENCE_SECONDS = 15 * 60
"""How long a finished attempt keeps its sandbox for a store that does not answer; then its result is offered again."""
_HURRIED_PATIENCE_SECONDS = 10
_LONGEST_PAUSE_SECONDS = 5.0

log = logging.getLogger(__name__)


async def accept(
    store: Store,
    lease: Lease,
    ending: Ending,
    summary: AttemptSummary,
    control: Control,
    steps: Sequence[Step] = (),
) -> JobState | None:
    """Where the job went: finished, held for a retry, queued again; None when this attempt no longer counts
    (``control`` then says LOST), or the store stayed away or does not know the job any more: then the result lies on
    this disk, and is offered again (``worker.offers``). Where a cancel or a deadline came before the end was accepted,
    it counts and not the ending: ``control.overruled`` then says which. ``steps``: those that the store was not
    told before."""
    began = time.monotonic()
    pause = 0.25
    while not control.lost:
        try:
            state, stop = await asyncio.to_thread(tell, store, lease, ending, summary, steps)
        except Forgotten as error:
            log.error("action=accept job=%s kept here only: %s", lease.job.id, error.what)  # noqa: TRY400
            return None
        except LeaseLost:
            control.interrupt(Stop.LOST)
        except StoreUnavailable as error:
            hurried = control.interruption is not None and control.interruption.stop is Stop.SHUTDOWN
            patience = _HURRIED_PATIENCE_SECONDS if hurried else PATIENCE_SECONDS
            if time.monotonic() - began > patience:
                log.error("action=accept job=%s given up: %s", lease.job.id, error.what)  # noqa: TRY400
                return None
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
        else:
            if stop:
                control.overruled = stop
                control.interrupt(stop)
            return state
    return None


def tell(
    store: Store, lease: Lease, ending: Ending, summary: AttemptSummary, steps: Sequence[Step] = ()
) -> tuple[JobState, Stop | None]:
    """Where the job went, and what overruled the ending: a cancel, a deadline. Told again, the answer is the same.

    Raises:
        LeaseLost: another attempt counts. StoreUnavailable: it may have been told.
    """
    match _fate(store, lease, ending):
        case Fate.FINISH:
            counts = store.finish(lease, ending.outcome, ending.reason, ending.message, summary, steps)
            return JobState.FINISHED, Stop.CANCELLED if counts is Outcome.CANCELLED else None
        case Fate.RETRY:
            message = f"Attempt {lease.attempt} failed ({ending.reason}): {ending.message}"
            delay = backoff_seconds(lease.job)
            state = store.requeue(lease, message=message, delay_seconds=delay, counted=True, steps=steps)
        case Fate.HAND_BACK:
            state = store.requeue(lease, message=ending.message, delay_seconds=0, counted=False, steps=steps)
        case Fate.WAIT:
            delay = ending.wait_seconds or tell_limit(store, lease, ending.route, ending.reset_at)
            state = store.requeue(lease, message=ending.message, delay_seconds=delay, counted=False, steps=steps)
    if state is not JobState.FINISHED:
        return state, None
    return state, Stop.DEADLINE if store.job(lease.job.id).reason is Reason.DEADLINE else Stop.CANCELLED


def _fate(store: Store, lease: Lease, ending: Ending) -> Fate:
    """A job whose model route is held goes back uncounted: it failed for no fault of its own."""
    held = tell_route(store, lease, ending.route)
    return Fate.HAND_BACK if held and ending.reason is Reason.PROVIDER else fate(ending, lease.job)
