"""The worker process: its threads, its signals, its end.

    main thread     signals, health of the slots, shutdown
    loop            the one event loop: all attempts, all child processes
    Huey slots      claim, hand the attempt over, wait
    beats           renews all leases on a connection of its own
    reaper          takes back dead workers' jobs, releases what is due, announces this worker, sweeps

The first SIGTERM or SIGINT drains: nothing more is claimed, running attempts may end. The second, a SIGHUP, or the
patience of the drain at its end, hurries: attempts collect what they have and are handed back. Either way every
sandbox is destroyed before the process ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO

import tatin_jobs
from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import EXIT_OK, BadInput, StoreUnavailable, TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import Lease, Need, WorkerInfo
from tatin_jobs.queue import make_huey
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store, open_store
from tatin_jobs.store.promises import store_promises
from tatin_jobs.units import format_duration
from worker.awake import Awake
from worker.capacity import below_floor, offer_of
from worker.claim_note import ClaimNote
from worker.collect import Unpackers
from worker.context import Context
from worker.control import Stop
from worker.hand_over import Attempts
from worker.hardening import harden
from worker.journal import Journal
from worker.kept import taken_by_kept
from worker.leases import Beats, Claimer, Reaper
from worker.loop import LoopThread
from worker.notifier import Notifier
from worker.offers import Offers
from worker.reach import Reaching
from worker.recovery import recover
from worker.redaction import RedactingFilter
from worker.repository import Repositories
from worker.sandboxes import choose_provider
from worker.sweep import SWEEP_SECONDS, sweep
from worker.tasks import SlotConsumer, register

HEALTH_SECONDS = 10.0
LOOK_SECONDS = 0.1
"""How often an idle worker of one batch looks whether the batch is over."""
COLLECT_AFTER = 10_000
"""Objects that may wait for the garbage collection."""
HURRY_SECONDS = 120.0
"""How long a hurried end may take before the process ends all the same; the next start destroys what is left."""

log = logging.getLogger(__name__)


@contextmanager
def home_lock(home: Home) -> Iterator[None]:
    """Hold the one worker's lock of this home.

    Raises:
        BadInput: another worker holds it.
    """
    with home.worker_lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise BadInput(
                f"A worker already runs on TATIN_HOME '{home.root}'.",
                seen=f"its process id is {file.read(20).strip() or 'unknown'}",
                try_="submit to it, or give this one a home of its own with TATIN_HOME.",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def run_worker(settings: Settings, batch: str | None = None, parent: IO[bytes] | None = None) -> int:
    """Work until told to stop; with ``batch``, until that batch is over. With ``parent``, hurry when it closes.

    Returns the process's exit code.

    Raises:
        BadInput: another worker runs on this home, or has this name. Missing: no provider, or no store.
    """
    harden(settings)
    home = Home(settings.home)
    home.prepare()
    with home_lock(home), open_store(settings, home) as store:
        return Worker(settings, home, store).run(batch, parent)


class Worker:
    """One host's worker, put together and taken apart in order."""

    def __init__(self, settings: Settings, home: Home, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._loop = LoopThread()
        home_id = home.id()
        provider = choose_provider(settings, home, home_id)
        self._context = Context(
            settings=settings,
            home=home,
            home_id=home_id,
            offer=offer_of(settings, provider.kind),
            store=store,
            blobs=Blobs(home.blobs),
            provider=provider,
            repositories=Repositories(home, private_addresses=settings.private_repos),
            unpackers=Unpackers(),
            journal=Journal(home.journal),
        )
        self._awake = Awake()
        self._reaching = Reaching(self._context)
        self._problem = ""
        self._started_at = datetime.now(UTC)
        self._stop_asked = 0
        self._claimer = Claimer(
            store,
            settings,
            self._context.offer,
            self._taken,
            self._may_claim,
            home_id=home_id,
            note=ClaimNote(home.claim_note),
        )
        self._attempts = Attempts(self._context, self._loop, on_end=lambda lease: self._claimer.release(lease.token))
        self._beats = Beats(
            store,
            settings,
            self._claimer.held,
            on_cancel=lambda token: self._attempts.interrupt(token, Stop.CANCELLED),
            on_overdue=lambda token: self._attempts.interrupt(token, Stop.DEADLINE),
            on_lost=lambda token: self._attempts.interrupt(token, Stop.LOST),
            on_cut_off=lambda token: self._attempts.interrupt(
                token, Stop.CUT_OFF, format_duration(settings.cut_off_seconds)
            ),
        )
        self._offers = Offers(store.sibling(), home, self._claimer.held)
        self._reaper = Reaper(store.sibling(), settings, on_tick=self._on_tick)
        self._notifier = Notifier(store.sibling(), settings, home_id)
        for handler in logging.getLogger().handlers:
            handler.addFilter(RedactingFilter(self._context.redactor))

    def run(self, batch: str | None, parent: IO[bytes] | None) -> int:
        """Start everything, wait for the end, take everything down."""
        self._store.enroll(self._settings.worker_name, self._context.home_id)
        self._loop.start()
        self._claimer.start()
        self._beats.start()
        recovery = recover(self._context, self._claimer.adopt, lambda lease: self._claimer.release(lease.token))
        recovered = self._loop.submit(recovery).result()
        self._problem = recovered.problem
        for adopted in recovered.adopted:
            self._attempts.go_on(adopted)
        try:
            self._announce()
            self._warn_of_a_forgetful_store()
        except TatinError as error:  # the next tick says so
            log.warning("action=announce waits: %s", error.what)
        self._reaper.start()
        self._notifier.start()
        self._loop.submit(self._reaching.start()).result()
        sweeper = self._loop.submit(self._keep_sweeping())
        huey = make_huey(self._claimer)
        register(huey, self._claimer.take, self._start)
        consumer = SlotConsumer(huey, workers=self._context.offer.slots, periodic=False, check_worker_health=True)
        self._install_signals()
        if parent is not None:
            threading.Thread(target=self._watch_parent, args=(parent,), name="tatin-parent", daemon=True).start()
        consumer.start()
        _spare_collections()
        log.info("action=start worker=%s pid=%d offer=%s", self._settings.worker_name, os.getpid(), self._context.offer)
        try:
            self._wait(consumer, batch)
        finally:
            self._shut_down(consumer)
            self._loop.submit(self._reaching.aclose()).result()
            sweeper.cancel()
            self._reaper.stop()
            self._notifier.stop()
            self._beats.stop()
            self._awake.close()
            self._retire()
            self._loop.submit(self._context.unpackers.aclose()).result()
            self._loop.stop()
        return EXIT_OK

    # Claiming

    def _may_claim(self) -> bool:
        if self._stop_asked or self._problem or self._reaching.problem:
            return False
        return below_floor(self._settings) is None

    def _taken(self) -> list[Need]:
        lingering = self._context.lingering
        return [*lingering.needs(), *taken_by_kept(self._context.home, besides=lingering.names())]

    def _start(self, lease: Lease) -> Future[None]:
        return self._attempts.start(lease)

    def _warn_of_a_forgetful_store(self) -> None:
        for promise in store_promises(self._store):
            if not promise.kept:
                _say(f"jobs may be lost in this store ({promise.seen}): {promise.fix}")

    def _on_tick(self) -> None:
        self._offers.tick()
        self._awake.hold(bool(self._attempts.running()))
        self._announce()

    def _announce(self) -> None:
        problem = self._problem or self._reaching.problem or below_floor(self._settings) or ""
        self._store.enroll(self._settings.worker_name, self._context.home_id)
        self._store.announce(
            WorkerInfo(
                name=self._settings.worker_name,
                host=os.uname().nodename,
                pid=os.getpid(),
                version=tatin_jobs.__version__,
                offer=self._context.offer,
                sandbox=self._context.provider.kind,
                started_at=self._started_at,
                every_seconds=self._settings.reap_seconds,
                draining=bool(self._stop_asked),
                problem=problem,
                running=self._attempts.running(),
                egress_warning=self._context.provider.capabilities.egress_warning,
            )
        )

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._problem = await sweep(self._context, lambda: self._attempts.sandboxes() | self._reaching.sandboxes)

    # Ending

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        """Counts only: everything else is done by the main thread's loop."""
        self._stop_asked += 2 if number == signal.SIGHUP else 1

    def _watch_parent(self, parent: IO[bytes]) -> None:
        while parent.read(1):
            pass
        self._stop_asked += 2

    def _wait(self, consumer: SlotConsumer, batch: str | None) -> None:
        checked = looked = time.monotonic()
        while not self._stop_asked:
            time.sleep(0.05)
            if batch and time.monotonic() - looked > LOOK_SECONDS and not self._attempts.running():
                looked = time.monotonic()
                if self._is_over(batch):
                    return
            if time.monotonic() - checked > HEALTH_SECONDS:
                checked = time.monotonic()
                consumer.check_worker_health()

    def _is_over(self, batch: str) -> bool:
        try:
            jobs = self._store.jobs(self._store.batch(batch).jobs)
        except StoreUnavailable:
            return False
        return all(job.state is JobState.FINISHED for job in jobs)

    def _shut_down(self, consumer: SlotConsumer) -> None:
        """Drain, then hurry; returns when no attempt runs any more, or the hurry has taken too long."""
        self._stop_asked = max(1, self._stop_asked)
        asked = self._stop_asked
        consumer.stop_flag.set()
        self._claimer.close()
        self._attempts.drain()
        running = self._attempts.running()
        if running:
            log.info("action=drain running=%d patience=%ss", len(running), self._settings.drain_seconds)
            _say(f"waiting for {len(running)} running; once more to hand them back")
        deadline = time.monotonic() + self._settings.drain_seconds
        while self._attempts.running() and time.monotonic() < deadline and self._stop_asked == asked == 1:
            time.sleep(0.05)
        if self._attempts.running():
            log.info("action=hurry running=%d", len(self._attempts.running()))
            _say("handing back what runs")
            self._attempts.interrupt_all(Stop.SHUTDOWN)
        deadline = time.monotonic() + HURRY_SECONDS
        for _, thread in consumer.worker_threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        while self._attempts.running() and time.monotonic() < deadline:  # adopted ones have no slot's thread
            time.sleep(0.05)

    def _retire(self) -> None:
        try:
            self._store.retire(self._settings.worker_name, self._context.home_id)
        except TatinError as error:
            log.warning("action=retire not told to the store: %s", error.what)


def _spare_collections() -> None:
    """What is there when the worker has started stays to its end: no garbage collection need pass over it again. Nor
    need there be one for every 700 objects: an attempt makes thousands, few of them in cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def _say(text: str) -> None:
    print(f"tatin worker: {text}", file=sys.stderr, flush=True)  # for the person at the terminal, not the log
