"""Hosts, their sandboxes and their workers. A worker is made of the real parts, without their threads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from pathlib import Path
from typing import Any, cast

from tatin_jobs.errors import Forgotten, LeaseLost, SandboxError, StoreUnavailable, TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import AttemptSummary, Lease, Need, Offer
from tatin_jobs.needs import granted
from tatin_jobs.results import RouteFacts
from tatin_jobs.settings import Settings
from tatin_jobs.states import Outcome, Reason
from tatin_jobs.store import Booked
from tests.simulation.clock import Clock
from tests.simulation.link import Link, SimStore
from worker.acceptance import tell
from worker.context import Context
from worker.control import Interruption, Stop
from worker.ending import Ending, interrupted_by
from worker.journal import Entry, Journal
from worker.leases import Beats, Claimer, Reaper
from worker.recovery import recover
from worker.sandboxes.base import Capabilities, SandboxProvider
from worker.sandboxes.names import sandbox_name
from worker.sweep import destroy_sandbox, sweep

LEASE_SECONDS = 60.0
BEAT_SECONDS = 15.0
REAP_SECONDS = 5.0
ENDINGS = [
    Ending(Outcome.SUCCEEDED),
    Ending(Outcome.SUCCEEDED),
    Ending(Outcome.FAILED, Reason.AGENT, "no"),
    Ending(Outcome.FAILED, Reason.SANDBOX, "no"),
    Ending(Outcome.FAILED, Reason.WORKER, "back", hand_back=True),
    Ending(Outcome.FAILED, Reason.QUOTA, "limit"),
    Ending(Outcome.FAILED, Reason.QUOTA, "limit"),
    Ending(Outcome.FAILED, Reason.PROVIDER, "502"),
]


class SimProvider:
    """The sandboxes of one host: they outlive their worker, and are not adopted. ``stuck``: destroying fails."""

    kind = "sim"
    capabilities = Capabilities(True, True, survives_worker=False, snapshot=False, sudo=False)

    def __init__(self) -> None:
        self.sandboxes: dict[str, Need] = {}
        self.stuck = False

    async def list(self) -> list[str]:
        return sorted(self.sandboxes)

    async def destroy(self, name: str) -> None:
        if self.stuck and name in self.sandboxes:
            raise SandboxError("it resists")
        self.sandboxes.pop(name, None)


class Host:
    """What outlives a worker: its home with the journal, its sandboxes, its link."""

    def __init__(self, name: str, folder: Path, offer: Offer) -> None:
        self.name = name
        self.home = Home(folder)
        self.home.prepare()
        self.home_id = self.home.id()
        self.offer = offer
        self.provider = SimProvider()
        self.link = Link()
        self.worker: SimWorker | None = None
        self.settings = Settings(
            home=folder,
            worker_name=name,
            lease_seconds=LEASE_SECONDS,
            beat_seconds=BEAT_SECONDS,
            reap_seconds=REAP_SECONDS,
        )


class Phase(Enum):
    """How far an attempt is."""

    CLAIMED = auto()
    BOOKED = auto()
    RUNNING = auto()
    ENDED = auto()
    TOLD = auto()


@dataclass
class SimAttempt:
    """One attempt as its worker knows it."""

    lease: Lease
    name: str
    need: Need
    phase: Phase = Phase.CLAIMED
    stop: Stop | None = None
    ending: Ending | None = None


class SimWorker:
    """One worker process, alive or frozen; killed by being forgotten."""

    def __init__(
        self,
        host: Host,
        store: SimStore,
        clock: Clock,
        rng: random.Random,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self.host, self.store, self.clock, self.rng, self.run = host, store, clock, rng, run
        self.frozen = self.closing = False
        self.problem = ""
        self.attempts: dict[str, SimAttempt] = {}
        self.next_beat = self.next_reap = clock.now
        self.context = Context(
            settings=host.settings,
            home=host.home,
            home_id=host.home_id,
            offer=host.offer,
            store=store,
            blobs=cast("Any", None),
            provider=cast("SandboxProvider", host.provider),
            repositories=cast("Any", None),
            unpackers=cast("Any", None),
            journal=Journal(host.home.journal),
        )
        may_claim: Callable[[], bool] = lambda: not self.problem and not self.closing  # noqa: E731
        needs = self.context.lingering.needs
        self.claimer = Claimer(
            store, host.settings, host.offer, needs, may_claim, home_id=host.home_id, clock=clock.monotonic
        )
        self.beats = Beats(
            store,
            host.settings,
            self.claimer.held,
            on_cancel=lambda token: self.interrupt(token, Stop.CANCELLED),
            on_overdue=lambda token: self.interrupt(token, Stop.DEADLINE),
            on_lost=lambda token: self.interrupt(token, Stop.LOST),
            on_cut_off=lambda token: self.interrupt(token, Stop.CUT_OFF),
            clock=clock.monotonic,
        )
        self.reaper = Reaper(store, host.settings)

    def start(self) -> None:
        """As ``worker.main``: take the name, recover, then claim. Raises StoreUnavailable."""
        self.store.enroll(self.host.name, self.host.home_id)
        self.problem = self.run(recover(self.context, self.claimer.adopt, lambda _: None)).problem

    def interrupt(self, token: str, stop: Stop) -> None:
        if (attempt := self.attempts.get(token)) and attempt.stop is not Stop.LOST:
            attempt.stop = stop

    def tick(self) -> None:
        """What its threads do by the time that it is now."""
        if self.frozen:
            return
        try:
            if self.clock.now >= self.next_beat:
                self.next_beat = self.clock.now + BEAT_SECONDS
                self.beats.tick(self.clock.now)
            if self.clock.now >= self.next_reap:
                self.next_reap = self.clock.now + REAP_SECONDS
                if self.rng.random() < 0.4:  # any worker does it for all
                    self.reaper.keep_moving()
                self.reaper.tick(self.clock.now)
                self.sweep()
        except TatinError:
            pass

    def sweep(self) -> None:
        live = {attempt.name for attempt in self.attempts.values()}
        self.problem = self.run(sweep(self.context, lambda: live))

    def poll(self) -> Lease | None:
        """Claim once; what was got begins."""
        lease = self.claimer.poll()
        if lease is not None:
            name = sandbox_name(self.host.home_id, lease.job.id, lease.attempt)
            self.attempts[lease.token] = SimAttempt(lease, name, granted(lease.job.need, self.host.offer))
        return lease

    def step(self, attempt: SimAttempt, *, good: bool = False) -> None:
        """One step of an attempt, in the order of ``worker.runner``."""
        lease = attempt.lease
        match attempt.phase:
            case Phase.CLAIMED:
                self.context.lingering.add(attempt.name, Booked.of(attempt.need, lease.job.id, lease.token))
                entry = {"job": lease.job.id, "attempt": lease.attempt, "token": lease.token, "need": attempt.need}
                self.context.journal.write(Entry(sandbox=attempt.name, **cast("Any", entry)))
                attempt.phase = Phase.BOOKED
            case Phase.BOOKED:
                self.host.provider.sandboxes[attempt.name] = attempt.need
                attempt.phase = Phase.RUNNING
            case Phase.RUNNING:
                if attempt.stop or good or self.rng.random() < 0.5:
                    attempt.ending = self._ending(attempt, good)
                    attempt.phase = Phase.ENDED
            case Phase.ENDED:
                attempt.phase = self._tell(attempt)
            case Phase.TOLD:
                self.run(destroy_sandbox(self.context, attempt.name))
                del self.attempts[lease.token]
                self.claimer.release(lease.token)

    def _ending(self, attempt: SimAttempt, good: bool) -> Ending:
        if attempt.stop:
            return interrupted_by(Interruption(attempt.stop))
        spec = attempt.lease.job.spec
        ending = ENDINGS[0] if good else self.rng.choice(ENDINGS)
        if spec.model is None:
            return ending if ending.reason not in (Reason.QUOTA, Reason.PROVIDER) else ENDINGS[0]
        worked = {Reason.PROVIDER: False, None: True}.get(ending.reason)
        limit = "limit" if ending.reason is Reason.QUOTA else None
        reset = datetime.fromtimestamp(self.clock.wall(), UTC) + timedelta(seconds=self.rng.randint(5, 600))
        return Ending(
            ending.outcome,
            ending.reason,
            ending.message,
            ending.hand_back,
            reset if limit and self.rng.random() < 0.8 else None,
            RouteFacts(limit=limit, worked=worked),
        )

    def _tell(self, attempt: SimAttempt) -> Phase:
        assert attempt.ending is not None  # the phase before gave it
        if attempt.stop is Stop.LOST:
            return Phase.TOLD
        try:
            tell(self.store, attempt.lease, attempt.ending, AttemptSummary())
        except (LeaseLost, Forgotten):
            return Phase.TOLD
        except StoreUnavailable:
            return Phase.ENDED
        return Phase.TOLD


def own_loop() -> asyncio.AbstractEventLoop:
    """A loop for the coroutines of one world."""
    return asyncio.new_event_loop()
