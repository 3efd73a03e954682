"""Leases: claimed one at a time, renewed by a thread of their own, taken back from the dead.

No wall clock decides that a worker is dead: its beats stop changing for a whole lease by the reaper's own monotonic
clock (I8-I10). What goes wrong with the store is waited out; a lease is given up only when the store says so.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from tatin_jobs.errors import LeaseLost, TatinError
from tatin_jobs.models import Lease, Need, Offer
from tatin_jobs.settings import Settings
from tatin_jobs.store import BeatAnswer, Store

POLL_SECONDS = 1.0
"""How long a dequeue waits at most; Huey asks again at once."""
TROUBLE_SECONDS = 2.0
"""The pause after a store that did not answer: claims go on within 5 s of its return (F21)."""

log = logging.getLogger(__name__)


class Claimer:
    """Gives Huey's threads their jobs. One claim is under way at a time; the others wait on one condition.

    ``lingering`` tells what sandboxes without a lease still take; ``may_claim`` says whether to claim at all now.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        offer: Offer,
        lingering: Callable[[], Sequence[Need]],
        may_claim: Callable[[], bool],
    ) -> None:
        self._store = store
        self._settings = settings
        self._offer = offer
        self._lingering = lingering
        self._may_claim = may_claim
        self._nonce: str | None = None
        self._claiming = threading.Lock()
        self._changed = threading.Condition()
        self._epoch = 0
        self._closed = False
        self._leases: dict[str, Lease] = {}
        self._cursor = "0"
        self._waiter = threading.Thread(target=self._wait_for_work, name="tatin-wake", daemon=True)
        self._waiter.start()

    def next(self) -> Lease | None:
        """The next job that fits; None when there was none for a second, or the worker is closing."""
        with self._changed:
            epoch = self._epoch
        lease = self._try()
        if lease is None and not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._epoch != epoch or self._closed, timeout=POLL_SECONDS)
        return lease

    def take(self, job_id: str, token: str) -> Lease | None:
        """The lease that a message names, if it is held here."""
        lease = self._leases.get(job_id)
        return lease if lease is not None and lease.token == token else None

    def release(self, job_id: str) -> None:
        """An attempt is over: stop its beats, and see at once what fits now."""
        self._leases.pop(job_id, None)
        self.ring()

    def tokens(self) -> dict[str, str]:
        """Job id -> token of all that is held here."""
        return {job_id: lease.token for job_id, lease in list(self._leases.items())}

    def ring(self) -> None:
        """Something may fit now that did not before."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Claim nothing more; waiting threads return."""
        self._closed = True
        self.ring()

    def _try(self) -> Lease | None:
        with self._claiming:
            if self._closed or not self._may_claim():
                return None
            # A nonce is kept until the store has answered it: a claim whose reply was lost is asked for again (F24).
            self._nonce = self._nonce or secrets.token_hex(12)
            try:
                lease = self._store.claim(
                    self._settings.worker_name,
                    self._offer,
                    self._lingering(),
                    self._nonce,
                    self._settings.lease_seconds,
                )
            except TatinError as error:
                log.warning("action=claim waits: %s", error.what)
                time.sleep(TROUBLE_SECONDS)
                return None
            self._nonce = None
            if lease is None:
                return None
            self._leases[lease.job.id] = lease
            log.info("action=claim job=%s attempt=%d token=%s", lease.job.id, lease.attempt, lease.token)
        if self._closed:
            self._hand_back(lease)
            return None
        return lease

    def _hand_back(self, lease: Lease) -> None:
        try:
            self._store.requeue(lease, message="Handed back: the worker was stopped.", delay_seconds=0, counted=False)
        except (LeaseLost, TatinError) as error:
            log.warning("action=hand_back job=%s left to the reaper: %s", lease.job.id, error.what)
        self._leases.pop(lease.job.id, None)

    def _wait_for_work(self) -> None:
        """One connection waits for the store's wake-ups on behalf of all slots."""
        store = self._store.sibling()
        while not self._closed:
            try:
                cursor = store.wake(self._cursor, POLL_SECONDS)
            except TatinError:
                time.sleep(POLL_SECONDS)
                continue
            if cursor != self._cursor:
                self._cursor = cursor
                self.ring()


class Beats:
    """The thread that renews what this worker holds. ``store`` is its own; it goes on until the very end."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        tokens: Callable[[], dict[str, str]],
        *,
        on_cancel: Callable[[str], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._store = store.sibling(timeout_seconds=settings.lease_seconds / 4)
        self._settings = settings
        self._tokens = tokens
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tatin-beats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=self._settings.lease_seconds)

    def tick(self) -> None:
        """Renew everything once, and pass on what the store says."""
        tokens = self._tokens()
        for job_id, answer in self._store.beat(tokens, self._settings.lease_seconds).items():
            if answer is BeatAnswer.CANCEL:
                self._on_cancel(job_id)
            elif answer is BeatAnswer.LOST and self._tokens().get(job_id) == tokens[job_id]:
                log.warning("action=lost job=%s", job_id)
                self._on_lost(job_id)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.beat_seconds):
            try:
                self.tick()
            except TatinError as error:
                log.warning("action=beat not told: %s", error.what)


class Reaper:
    """The thread that takes jobs back from dead workers and queues held jobs that are due."""

    def __init__(self, store: Store, settings: Settings, on_tick: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._settings = settings
        self._on_tick = on_tick
        self._watched: dict[str, tuple[str, float]] = {}
        self._run_id = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tatin-reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def tick(self, now: float) -> None:
        """One round at this monotonic time. Any error forgets all that was seen (I9) and is passed on."""
        try:
            run_id = self._store.run_id()
            beats = self._store.beats()
            if run_id != self._run_id:
                self._watched, self._run_id = {}, run_id
            for job_id, seen in beats.items():
                self._look(job_id, seen, now)
            self._watched = {job_id: watch for job_id, watch in self._watched.items() if job_id in beats}
        except TatinError:
            self._watched = {}
            raise

    def _look(self, job_id: str, seen: str, now: float) -> None:
        before = self._watched.get(job_id)
        if before is None or before[0] != seen:
            self._watched[job_id] = (seen, now)
        elif now - before[1] >= _lease_seconds(seen, self._settings.lease_seconds):
            state = self._store.reap(job_id, seen, self._settings.max_deaths)
            log.warning("action=reap job=%s state=%s", job_id, state)
            del self._watched[job_id]

    def _run(self) -> None:
        reaped = 0.0
        while not self._stop.wait(min(1.0, self._settings.reap_seconds)):
            now = time.monotonic()
            try:
                self._store.release_due()
                if now - reaped >= self._settings.reap_seconds:
                    reaped = now
                    self.tick(now)
                    self._on_tick()
            except TatinError as error:
                log.warning("action=reap waits: %s", error.what)


def _lease_seconds(seen: str, default: float) -> float:
    """The length of the lease that the holder declared with its beat."""
    try:
        return float(seen.rsplit("|", 1)[1])
    except (IndexError, ValueError):
        return default
