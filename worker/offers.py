"""Endings that lie on this host's disk and that the store has not accepted: offered again until it has (F20, F26).

A result is durable before it is told (I7), and says under which token. So whatever kept the store from taking it (an
outage longer than an attempt waits, the death of the worker between the two, a store that came back from an older
copy), it is taken later, as long as the store still holds that very lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from tatin_jobs.errors import LeaseLost, TatinError, UnknownId
from tatin_jobs.home import Home
from tatin_jobs.models import Lease
from tatin_jobs.results import Result, attempt_folders, read_result, write_result
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store
from worker.acceptance import tell
from worker.control import Interruption
from worker.ending import Ending, interrupted_by

log = logging.getLogger(__name__)


class Offers:
    """Looks at every lease in the store that nobody here holds, for a result of it on this disk."""

    def __init__(self, store: Store, home: Home, held: Callable[[], Mapping[str, str]]) -> None:
        self._store = store
        self._home = home
        self._held = held

    def tick(self) -> None:
        """One round. Raises StoreUnavailable."""
        for job_id, seen in self._store.beats().items():
            token = seen.split("|", 1)[0]
            if token in self._held():
                continue
            for _, folder in attempt_folders(self._home, job_id):
                offer_attempt(self._store, folder, job_id, token)


def offer_attempt(store: Store, folder: Path, job_id: str, token: str) -> bool:
    """Offer the result in ``folder`` if it is the one of this token; False when there is none. What the store says is
    written into it; where the store is away the result stays as it is, to be offered later."""
    result = read_result(folder)
    if result is None or result.token != token or result.outcome is Outcome.LOST:
        return False
    try:
        _settle(store, folder, result)
    except TatinError as error:
        log.warning("action=offer job=%s waits: %s", job_id, error.what)
    except OSError as error:
        log.error("action=offer job=%s: its result cannot be written: %s", job_id, error)  # noqa: TRY400
    return True


def _settle(store: Store, folder: Path, result: Result) -> None:
    ending = _ending(result)
    try:
        lease = Lease(job=store.job(result.job), token=result.token or "", attempt=result.attempt)
        state, overruled = tell(store, lease, ending, result.summary(folder))
    except (LeaseLost, UnknownId) as error:
        log.info("action=offer job=%s attempt=%d refused: %s", result.job, result.attempt, error.what)
        settled = result.model_copy(update={"accepted": False})
    else:
        log.info("action=offer job=%s attempt=%d state=%s", result.job, result.attempt, state)
        settled = result.model_copy(update={"state": state, "accepted": state is JobState.FINISHED})
        if overruled:
            counts = interrupted_by(Interruption(overruled))
            settled = settled.model_copy(
                update={"outcome": counts.outcome, "reason": counts.reason, "message": counts.message}
            )
    if settled != result:
        write_result(folder, settled)


def _ending(result: Result) -> Ending:
    """The ending that was written down: one that hands its job back says so by its state."""
    return Ending(
        result.outcome,
        result.reason,
        result.message,
        hand_back=result.state is JobState.QUEUED,
        reset_at=result.reset_at,
        route=result.route,
        wait_seconds=result.wait_seconds,
    )
