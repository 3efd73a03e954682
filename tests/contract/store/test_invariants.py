"""The invariants I1 to I4 under random moves of two workers, a reaper and people, with replies lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tatin_jobs.errors import LeaseLost, WrongState
from tatin_jobs.models import Lease, Need, Offer
from tatin_jobs.states import JobState, Move, Outcome, allowed
from tatin_jobs.store import BeatAnswer, Booked, Store
from tests.support.stores import LEASE_SECONDS, client_of, losing_replies, make_job, submit

MAX_DEATHS = 2
OFFERS = {
    "w1": Offer(cpus=3, memory_mib=1000, disk_mib=1000, slots=2),
    "w2": Offer(cpus=5, memory_mib=700, disk_mib=1000, slots=4),
}
workers = st.sampled_from(sorted(OFFERS))
numbers = st.integers(0, 40)
lost = st.integers(0, 2)


@dataclass
class Attempt:
    """An attempt as its worker knows it; ``gone``: its sandbox is verified gone."""

    worker: str
    lease: Lease
    gone: bool = False


class StoreMachine(RuleBasedStateMachine):
    """Random moves; ``store`` is set by the test, for each implementation."""

    store: Store

    @initialize()
    def start(self) -> None:
        client_of(self.store).flushall()
        self.store.prepare()
        self.ids: list[str] = []
        self.attempts: list[Attempt] = []
        self.states: dict[str, JobState] = {}
        self.ends: dict[str, Any] = {}
        self.accepted: dict[str, Outcome] = {}
        self.last_token = 0
        self.nonce = 0

    # People

    @rule(cpus=st.integers(1, 6), priority=st.integers(-1, 1), held=st.booleans(), lost=lost)
    def submit(self, cpus: int, priority: int, held: bool, lost: int) -> None:
        name = f"job-{len(self.ids)}"
        need = Need(cpus=cpus, memory_mib=100 * cpus, disk_mib=10, cpus_wish=cpus == 6)
        state = JobState.HELD if held else JobState.QUEUED
        with losing_replies(self.store, lost):
            submit(self.store, make_job(name, need=need, priority=priority, state=state))
        self.ids.append(name)
        self.moved(name, Move.SUBMIT)

    @rule(which=numbers, move=st.sampled_from([Move.HOLD, Move.RELEASE, Move.CANCEL]), lost=lost)
    def person(self, which: int, move: Move, lost: int) -> None:
        if self.ids:
            name = self.ids[which % len(self.ids)]
            try:
                with losing_replies(self.store, lost):
                    getattr(self.store, move.value)(name)
            except WrongState:
                targets = [state for state in JobState if allowed(self.states[name], move, state)]
                assert targets == [], f"{move} of a job that is {self.states[name]} was refused"
            else:
                self.moved(name, move)

    # Workers

    @rule(worker=workers, lost=lost, patience=st.sampled_from([0, 600]))
    def claim(self, worker: str, lost: int, patience: float) -> None:
        self.nonce += 1
        lingering = [
            Booked.of(self.part(one), one.lease.job.id, one.lease.token)
            for one in self.attempts
            if one.worker == worker and not one.gone
        ]
        with losing_replies(self.store, lost):
            lease = self.store.claim(
                worker, OFFERS[worker], lingering, f"n{self.nonce}", LEASE_SECONDS, reserve_after_seconds=patience
            )
        if lease is not None:
            self.attempts.append(Attempt(worker, lease))
            number = int(lease.token.split(":")[1])
            assert number > self.last_token, "I2: a token came again"
            self.last_token = number
            assert lease.attempt == sum(one.lease.job.id == lease.job.id for one in self.attempts)
            self.moved(lease.job.id, Move.CLAIM)

    @rule(which=numbers, lost=lost)
    def beat(self, which: int, lost: int) -> None:
        if one := self.attempt(which):
            token, job = one.lease.token, one.lease.job.id
            with losing_replies(self.store, lost):
                answer = self.store.beat({token: job}, LEASE_SECONDS)[token]
            assert (answer in (BeatAnswer.HELD, BeatAnswer.CANCEL)) == self.is_current(one)
            self.moved(job, Move.RENEW)

    @rule(which=numbers, outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED]), lost=lost)
    def finish(self, which: int, outcome: Outcome, lost: int) -> None:
        if one := self.attempt(which):
            current = self.is_current(one)
            wanted = self.store.job(one.lease.job.id).cancel_wanted
            repeated = self.accepted.get(one.lease.token) is (Outcome.CANCELLED if wanted else outcome)
            try:
                with losing_replies(self.store, lost):
                    counts = self.store.finish(one.lease, outcome)
            except LeaseLost:
                assert not current
                assert not repeated
            else:
                assert current or repeated, "I3: an attempt that is over ended its job"
                assert counts is (Outcome.CANCELLED if wanted else outcome)
                self.accepted[one.lease.token] = counts
                self.moved(one.lease.job.id, Move.FINISH)

    @rule(which=numbers, delay=st.sampled_from([0, 3600]), counted=st.booleans(), lost=lost)
    def requeue(self, which: int, delay: float, counted: bool, lost: int) -> None:
        if one := self.attempt(which):
            current = self.is_current(one)
            job = self.store.job(one.lease.job.id)
            try:
                with losing_replies(self.store, lost):
                    self.store.requeue(one.lease, message="", delay_seconds=delay, counted=counted)
            except LeaseLost:
                assert not current
            else:
                after = self.store.job(one.lease.job.id)
                used = int(counted and current and not job.cancel_wanted)
                assert after.retries_used == job.retries_used + used, "a retry was counted twice"
                self.moved(one.lease.job.id, Move.FINISH if current and job.cancel_wanted else Move.REQUEUE)

    @rule(which=numbers)
    def sandbox_is_gone(self, which: int) -> None:
        one = self.attempt(which)
        if one and not self.is_current(one):
            one.gone = True

    @rule(which=numbers, lost=lost)
    def reap(self, which: int, lost: int) -> None:
        beats = sorted(self.store.beats().items())
        if beats:
            name, seen = beats[which % len(beats)]
            deaths = self.store.job(name).deaths
            with losing_replies(self.store, lost):
                self.store.reap(name, seen, MAX_DEATHS)
            assert self.store.job(name).deaths == deaths + 1
            self.moved(name, Move.REAP)

    @rule()
    def forget_the_scripts(self) -> None:
        client_of(self.store).script_flush()

    # The model

    def attempt(self, which: int) -> Attempt | None:
        return self.attempts[which % len(self.attempts)] if self.attempts else None

    def is_current(self, one: Attempt) -> bool:
        job = self.store.job(one.lease.job.id)
        return job.state is JobState.RUNNING and job.token == one.lease.token

    def part(self, one: Attempt) -> Need:
        need, offer = one.lease.job.need, OFFERS[one.worker]
        return need.model_copy(update={"cpus": min(need.cpus, offer.cpus)}) if need.cpus_wish else need

    def moved(self, name: str, move: Move) -> None:
        before, after = self.states.get(name), self.store.job(name).state
        assert after == before or allowed(before, move, after), f"{move} took a job from {before} to {after}"
        self.states[name] = after

    @invariant()
    def i1_each_job_is_in_one_place(self) -> None:
        assert self.store.misplaced() == []
        assert sum(self.store.counts().values()) == len(self.ids)

    @invariant()
    def i3_finished_is_final(self) -> None:
        for job in self.store.jobs(self.ids):
            assert job.state == self.states[job.id], "a job moved that nobody moved"
            assert (job.outcome is not None) == (job.state is JobState.FINISHED)
            if job.state is JobState.FINISHED:
                end = (job.token, job.outcome)
                assert self.ends.setdefault(job.id, end) == end
            moves = Counter(event.move for event in self.store.events(job.id))
            assert moves["finish"] <= 1
            assert job.deaths <= MAX_DEATHS

    @invariant()
    def i4_no_host_is_promised_more_than_it_has(self) -> None:
        for worker, offer in OFFERS.items():
            here = [self.part(one) for one in self.attempts if one.worker == worker and not one.gone]
            assert len(here) <= offer.slots
            assert sum(part.cpus for part in here) <= offer.cpus
            assert sum(part.memory_mib for part in here) <= offer.memory_mib


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_the_invariants_hold_under_random_moves(store: Store, request: pytest.FixtureRequest) -> None:
    """I1, I2, I3, I4, I11."""

    class Machine(StoreMachine):
        pass

    Machine.store = store
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
