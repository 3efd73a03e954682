"""Leases: claimed one at a time, renewed by a thread of their own, taken back from the dead.

No wall clock decides that a worker is dead: its beats stop changing for a whole lease by the reaper's own monotonic
clock (I8-I10). What goes wrong with the store is waited out; a lease is given up only when the store says so.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tatin_jobs.errors import TatinError
from tatin_jobs.models import Lease, Need, Offer
from tatin_jobs.needs import granted
from tatin_jobs.settings import Settings
from tatin_jobs.store import BeatAnswer, Booked, Store
from worker.claim_note import ClaimNote, new_nonce

POLL_SECONDS = 1.0
"""How long a dequeue waits at most; Huey asks again at once."""
TROUBLE_SECONDS = 2.0
"""The pause after a store that did not answer, at most: claims go on within 5 s of its return (F21). It is well below a
lease, for the store may have given a job whose reply was lost, and nobody renews that yet (F24)."""
MAX_LEASE_SECONDS = 3600.0

log = logging.getLogger(__name__)


class Claimer:
    """Gives Huey's threads their jobs. One claim is under way at a time; the others wait on one condition, and ask
    again only when something has changed, or a second after the last one got nothing.

    ``note``: where the nonces of its claims are kept for the worker that comes after this one's death.
    ``lingering`` tells what sandboxes take that are not verified gone; ``may_claim`` says whether to claim at all now.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        offer: Offer,
        lingering: Callable[[], Sequence[Need]],
        may_claim: Callable[[], bool],
        *,
        home_id: str = "",
        note: ClaimNote | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._offer = offer
        self._lingering = lingering
        self._may_claim = may_claim
        self._home_id = home_id
        self._note = note
        self._fruitful = ""
        self._clock = clock
        self._nonce: str | None = None
        self._claiming = threading.Lock()
        self._changed = threading.Condition()
        self._epoch = 0
        self._nothing: tuple[int, float] = (-1, 0.0)
        self._closed = threading.Event()
        self._leases: dict[str, Lease] = {}  # by token
        self._cursor = "0"
        self._waiter = threading.Thread(target=self._wait_for_work, name="tatin-wake", daemon=True)

    def start(self) -> None:
        """Listen for the store's wake-ups; without it a claim comes within ``POLL_SECONDS`` all the same."""
        self._waiter.start()

    def next(self) -> Lease | None:
        """The next job that fits; None when there was none for a second, or the worker is closing."""
        epoch = self._epoch
        lease = self.poll()
        if lease is None and not self._closed.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._epoch != epoch or self._closed.is_set(), timeout=POLL_SECONDS)
        return lease

    def take(self, job_id: str, token: str) -> Lease | None:
        """The lease that a message names, if it is held here."""
        lease = self._leases.get(token)
        return lease if lease is not None and lease.job.id == job_id else None

    def adopt(self, lease: Lease) -> None:
        """Hold a lease of this home's earlier worker: its beats go on."""
        self._leases[lease.token] = lease

    def release(self, token: str) -> None:
        """An attempt is over: stop its beats, and see at once what fits now."""
        self._leases.pop(token, None)
        self.ring()

    def held(self) -> dict[str, str]:
        """Token -> job id of all that is held here. A job may be here twice: its old attempt is still being cleared
        away when the next one begins."""
        return {token: lease.job.id for token, lease in list(self._leases.items())}

    def ring(self) -> None:
        """Something may fit now that did not before."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Claim nothing more; waiting threads return."""
        self._closed.set()
        self.ring()

    def poll(self) -> Lease | None:
        """Ask once, without waiting; None also while another slot has just got nothing."""
        epoch = self._epoch
        with self._claiming:
            willing = not self._closed.is_set() and self._may_claim()
            if self._nonce is None and (not willing or self._known_empty(epoch)):
                return None
            try:
                lease = self._claim(willing)
            except TatinError as error:
                log.warning("action=claim waits: %s", error.what)
                self._closed.wait(min(TROUBLE_SECONDS, self._settings.lease_seconds / 4))
                return None
            if lease is None:
                self._nothing = (epoch, self._clock())
                return None
            self._leases[lease.token] = lease
            log.info("action=claim job=%s attempt=%d token=%s", lease.job.id, lease.attempt, lease.token)
        if self._closed.is_set():
            self._hand_back(lease)
            return None
        return lease

    def _claim(self, willing: bool) -> Lease | None:
        """Ask the store. A nonce is kept until it has answered, so a claim whose reply was lost is asked for again
        (F24), even by a worker that wants nothing new: what it was given counts as its own."""
        if self._nonce is None:
            self._nonce = new_nonce()
            if self._note is not None:
                with suppress(OSError):
                    self._note.write(self._nonce, self._fruitful)
        offer = self._offer if willing else self._offer.model_copy(update={"slots": 0})
        name, lease_seconds = self._settings.worker_name, self._settings.lease_seconds
        lease = self._store.claim(name, offer, self._in_use(), self._nonce, lease_seconds, home_id=self._home_id)
        self._fruitful = self._nonce if lease else self._fruitful
        self._nonce = None
        return lease

    def _in_use(self) -> list[Need]:
        """What sandboxes take, and what is held here and has none yet: a store that came back older, or empty, does not
        know of those leases (F26)."""
        sandboxes = list(self._lingering())
        booked = {need.token for need in sandboxes if isinstance(need, Booked)}
        held = [lease for token, lease in list(self._leases.items()) if token not in booked]
        here = [Booked.of(granted(lease.job.need, self._offer), lease.job.id, lease.token) for lease in held]
        return [*sandboxes, *here]

    def _known_empty(self, epoch: int) -> bool:
        """Whether another slot has just got nothing, and nothing has changed since."""
        return self._nothing[0] == epoch and self._clock() - self._nothing[1] < POLL_SECONDS * 0.9

    def _hand_back(self, lease: Lease) -> None:
        try:
            self._store.requeue(lease, message="Handed back: the worker was stopped.", delay_seconds=0, counted=False)
        except TatinError as error:
            log.warning("action=hand_back job=%s left to the reaper: %s", lease.job.id, error.what)
        self._leases.pop(lease.token, None)

    def _wait_for_work(self) -> None:
        """One connection waits for the store's wake-ups on behalf of all slots."""
        store = self._store.sibling()
        while not self._closed.is_set():
            try:
                cursor = store.wake(self._cursor, POLL_SECONDS)
            except TatinError:
                self._closed.wait(POLL_SECONDS)
                continue
            if cursor != self._cursor:
                self._cursor = cursor
                self.ring()
        store.close()


class Beats:
    """The thread that renews what this worker holds, until the very end, over a connection of its own; the callbacks
    are given the token of the attempt that is to stop. ``on_cut_off``: it could not be renewed for so long that
    somebody else may run the job by then (I8, F34). Two calls without an answer take less than a third of a lease
    (I10)."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        held: Callable[[], dict[str, str]],
        *,
        on_cancel: Callable[[str], None],
        on_overdue: Callable[[str], None] = lambda _: None,
        on_lost: Callable[[str], None],
        on_cut_off: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store.sibling(timeout_seconds=settings.lease_seconds / 8)
        self._settings = settings
        self._held = held
        self._on_cancel = on_cancel
        self._on_overdue = on_overdue
        self._on_lost = on_lost
        self._on_cut_off = on_cut_off
        self._clock = clock
        self._told_at = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tatin-beats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=self._settings.lease_seconds)

    def tick(self, now: float) -> None:
        """Renew everything once at this monotonic time, and pass on what the store says. What could not be renewed for
        too long is given up."""
        try:
            self._renew()
        except TatinError:
            if now - self._told_at > self._settings.cut_off_seconds:
                for token, job_id in self._held().items():
                    log.warning("action=give_up job=%s: cut off from the store", job_id)
                    self._on_cut_off(token)
            raise
        self._told_at = now

    def _renew(self) -> None:
        held = self._held()
        for token, answer in self._store.beat(held, self._settings.lease_seconds).items():
            if answer is BeatAnswer.CANCEL:
                self._on_cancel(token)
            elif answer is BeatAnswer.OVERDUE:
                self._on_overdue(token)
            elif answer is BeatAnswer.LOST:
                log.warning("action=lost job=%s", held[token])
                self._on_lost(token)
            elif answer is BeatAnswer.UNKNOWN:
                log.warning("action=forgotten job=%s: the store was emptied; its attempt goes on", held[token])

    def _run(self) -> None:
        while not self._stop.wait(self._settings.beat_seconds):
            try:
                self.tick(self._clock())
            except TatinError as error:
                log.warning("action=beat not told: %s", error.what)
            except Exception:
                log.exception("action=beat failed")
        self._store.close()


class Reaper:
    """The thread that takes jobs back from dead workers and queues held jobs that are due."""

    def __init__(self, store: Store, settings: Settings, on_tick: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._settings = settings
        self._on_tick = on_tick
        self._watched: dict[str, tuple[str, float]] = {}
        self._run_id = ""
        self._looked_at = -math.inf
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tatin-reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def keep_moving(self) -> None:
        """Move what waits for a time or for another job, and end what is past its deadline. Any worker may; the scripts
        see to it that each happens once."""
        self._store.release_due()
        self._store.end_overdue()
        self._store.settle_needs()

    def tick(self, now: float) -> None:
        """One round at this monotonic time. Any error forgets all that was seen (I9) and is passed on; so does a pause
        of the reaper itself: whoever was frozen has not watched, and may be the holder too (F05)."""
        pause = max(self._settings.lease_seconds / 2, 3 * self._settings.reap_seconds)
        if now - self._looked_at > pause:
            self._watched = {}
        self._looked_at = now
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
                self.keep_moving()
                if now - reaped >= self._settings.reap_seconds:
                    reaped = now
                    self.tick(now)
                    self._on_tick()
            except TatinError as error:
                log.warning("action=reap waits: %s", error.what)
            except Exception:
                log.exception("action=reap failed")


def _lease_seconds(seen: str, default: float) -> float:
    """The length of the lease that the holder declared with its beat; one that never ends is not believed."""
    try:
        seconds = float(seen.rsplit("|", 1)[1])
    except (IndexError, ValueError):
        return default
    return seconds if 0 < seconds <= MAX_LEASE_SECONDS else default
