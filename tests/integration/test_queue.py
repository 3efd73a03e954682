"""Huey's real consumer over a real Valkey, with attempts that only take time: claims, capacity, leases, ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tatin_jobs.errors import TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import Lease, Need, Offer
from tatin_jobs.queue import make_huey
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Booked, Store, open_store
from tatin_jobs.store.scripts import TRIES
from tests.support.store_server import servers
from tests.support.stores import losing_replies, make_job, submit
from tests.support.wait import until
from worker.leases import Beats, Claimer, Reaper
from worker.tasks import SlotConsumer, register

pytestmark = pytest.mark.needs("valkey")

OFFER = Offer(cpus=4, memory_mib=4000, disk_mib=4000, slots=8)
LEASE_SECONDS = 2.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home", worker_name="w1", lease_seconds=LEASE_SECONDS, beat_seconds=0.2, reap_seconds=0.2
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings, Home(settings.home)) as store:
        yield store


class Host:
    """A worker without sandboxes: an attempt waits for ``gate`` and succeeds, or stops when it is told to."""

    def __init__(self, store: Store, settings: Settings, offer: Offer = OFFER) -> None:
        self.store = store
        self.gate = threading.Event()
        self.runs: list[Lease] = []
        self.most = Counter[str]()
        self.stopped: list[tuple[str, str]] = []
        self._now: dict[str, Need] = {}
        self._lock = threading.Lock()
        self._stops: dict[str, threading.Event] = {}
        self._pool = ThreadPoolExecutor(offer.slots)
        self.claimer = Claimer(store, settings, offer, self._booked, lambda: True)
        self.beats = Beats(
            store,
            settings,
            self.claimer.held,
            on_cancel=lambda token: self._stop(token, "cancel"),
            on_lost=lambda token: self._stop(token, "lost"),
            on_cut_off=lambda token: self._stop(token, "cut off"),
        )
        self.reaper = Reaper(store.sibling(), settings)
        huey = make_huey(self.claimer)
        register(huey, self.claimer.take, self._start)
        self.consumer = SlotConsumer(huey, workers=offer.slots, periodic=False)

    def start(self) -> None:
        self.beats.start()
        self.reaper.start()
        self.consumer.start()

    def stop(self) -> None:
        self.consumer.stop_flag.set()
        self.claimer.close()
        self.gate.set()
        for _, thread in self.consumer.worker_threads:
            thread.join(20)
            assert not thread.is_alive()
        self.reaper.stop()
        self.beats.stop()
        self._pool.shutdown()

    def _booked(self) -> list[Need]:
        with self._lock:
            return list(self._now.values())

    def _start(self, lease: Lease) -> Future[None]:
        with self._lock:
            self.runs.append(lease)
            self._stops[lease.token] = threading.Event()
            self._now[lease.token] = Booked.of(lease.job.need, lease.job.id, lease.token)
            self.most["at once"] = max(self.most["at once"], len(self._now))
            self.most["cpus"] = max(self.most["cpus"], sum(need.cpus for need in self._now.values()))
        return self._pool.submit(self._run, lease)

    def _run(self, lease: Lease) -> None:
        stop = self._stops[lease.token]
        until(lambda: self.gate.is_set() or stop.is_set(), timeout=60, what="the gate")
        try:
            if not stop.is_set():
                self._until_told(lambda: self.store.finish(lease, Outcome.SUCCEEDED))
            elif ("cancel", lease.token) in self.stopped:
                self.store.finish(lease, Outcome.CANCELLED)
        finally:
            with self._lock:
                del self._now[lease.token]
            self.claimer.release(lease.token)

    def _until_told(self, tell: Callable[[], object]) -> None:
        def told() -> bool:
            try:
                tell()
            except TatinError:
                return False
            return True

        until(told, timeout=20, what="an accepted end")

    def _stop(self, token: str, why: str) -> None:
        self.stopped.append((why, token))
        self._stops[token].set()


@contextmanager
def host(store: Store, settings: Settings, offer: Offer = OFFER, *, working: bool = True) -> Iterator[Host]:
    made = Host(store, settings, offer)
    if working:
        made.gate.set()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def over(store: Store, count: int) -> None:
    until(lambda: store.counts()[JobState.FINISHED] == count, timeout=60, what=f"the end of {count} jobs")


def test_every_job_runs_once_on_two_workers(store: Store, settings: Settings) -> None:
    jobs = [make_job(f"job-{index}") for index in range(60)]
    with ExitStack() as both:
        hosts = [
            both.enter_context(host(store, settings.model_copy(update={"worker_name": name}))) for name in ("w1", "w2")
        ]
        for start in range(0, 60, 20):
            submit(store, *jobs[start : start + 20])
        over(store, 60)
    ran = Counter(lease.job.id for one in hosts for lease in one.runs)
    assert ran == Counter({job.id: 1 for job in jobs})
    assert {job.outcome for job in store.jobs(ran)} == {Outcome.SUCCEEDED}
    assert store.misplaced() == []


def test_capacity_and_slots_hold_while_jobs_come_and_go(store: Store, settings: Settings) -> None:
    """I4."""
    needs = [Need(cpus=1 + index % 3, memory_mib=100, disk_mib=10) for index in range(40)]
    offer = OFFER.model_copy(update={"cpus": 5, "slots": 3})
    with host(store, settings, offer, working=False) as one:
        submit(store, *(make_job(need=need) for need in needs))
        until(lambda: one.most["at once"] > 1, what="two attempts beside each other")
        one.gate.set()
        over(store, 40)
    assert one.most["cpus"] <= 5
    assert one.most["at once"] <= 3


def test_all_that_fits_runs_at_once(store: Store, settings: Settings) -> None:
    with host(store, settings, working=False) as one:
        submit(store, *(make_job() for _ in range(6)))
        until(lambda: len(one.runs) == OFFER.cpus, what="four attempts")
        one.gate.set()
        over(store, 6)


def test_claims_whose_replies_are_lost_are_not_lost_claims(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24."""
    monkeypatch.setattr("worker.leases.TROUBLE_SECONDS", 0.05)
    jobs = [make_job(f"job-{index}") for index in range(12)]
    with losing_replies(store, 6 * TRIES), host(store, settings) as one:
        submit(store.sibling(), *jobs)
        over(store.sibling(), 12)
    assert Counter(lease.job.id for lease in one.runs) == Counter(job.id for job in jobs)
    assert {job.deaths for job in store.jobs(job.id for job in jobs)} == {0}


def test_a_server_that_is_killed_while_jobs_run_costs_none(store: Store, settings: Settings) -> None:
    """F20: running attempts go on, their ends are stored, queued jobs are claimed."""
    jobs = [make_job(f"job-{index}") for index in range(8)]
    submit(store, *jobs)
    with host(store, settings, working=False) as one:
        until(lambda: len(one.runs) == OFFER.cpus, what="four attempts")
        run = store.run_id()
        (server,) = servers(Home(settings.home))
        server.kill()
        until(lambda: _answers(store) and store.run_id() != run, what="another server")
        one.gate.set()
        over(store, 8)
    assert Counter(lease.job.id for lease in one.runs) == Counter(job.id for job in jobs)
    assert one.stopped == []


def _answers(store: Store) -> bool:
    try:
        store.run_id()
    except TatinError:
        return False
    return True


def test_beats_keep_a_job_far_longer_than_a_lease(store: Store, settings: Settings) -> None:
    submit(store, make_job("job-1"))
    with host(store, settings, working=False) as one:
        until(lambda: one.runs, what="an attempt")

        def beat_count() -> int:
            return int(store.beats()["job-1"].split("|")[1])

        wanted = 3 * LEASE_SECONDS / settings.beat_seconds
        until(lambda: beat_count() >= wanted, timeout=30, what="the beats of three leases")
        assert store.job("job-1").attempt == 1
        one.gate.set()
        over(store, 1)
    assert len(one.runs) == 1


def test_the_job_of_a_silent_worker_is_taken_back_and_its_end_refused(store: Store, settings: Settings) -> None:
    """F01, F05: one accepted outcome."""
    submit(store, make_job("job-1"))
    dead = store.claim("w-dead", OFFER, [], "n1", LEASE_SECONDS)
    assert dead is not None
    with host(store, settings) as one:
        over(store, 1)
    job = store.job("job-1")
    assert (job.attempt, job.deaths, job.outcome) == (2, 1, Outcome.SUCCEEDED)
    assert [lease.attempt for lease in one.runs] == [2]
    with pytest.raises(TatinError):
        store.finish(dead, Outcome.FAILED)
    assert store.job("job-1").outcome is Outcome.SUCCEEDED


def test_a_cancel_reaches_the_one_who_runs_it(store: Store, settings: Settings) -> None:
    """F41."""
    submit(store, make_job("job-1"), make_job("job-2"))
    with host(store, settings, working=False) as one:
        until(lambda: len(one.runs) == 2, what="both attempts")
        store.cancel("job-1")
        over(store, 1)
        assert store.job("job-1").outcome is Outcome.CANCELLED
        assert store.job("job-2").state is JobState.RUNNING
        one.gate.set()
        over(store, 2)


def test_a_drained_worker_ends_what_it_has_and_claims_nothing_more(store: Store, settings: Settings) -> None:
    """F03."""
    submit(store, *(make_job(f"job-{index}") for index in range(8)))
    with host(store, settings, working=False) as one:
        until(lambda: len(one.runs) == 4, what="four attempts")
        store.drain("w1", True)
        one.gate.set()
        over(store, 4)
        until(lambda: one.claimer.held() == {}, what="an idle worker")
        one.claimer.ring()
        assert store.counts()[JobState.QUEUED] == 4
        assert len(one.runs) == 4
        store.drain("w1", False)
        over(store, 8)


def test_held_jobs_are_released_without_a_free_slot(store: Store, settings: Settings) -> None:
    """A Huey tick would need one, and on a busy night there is none."""
    from datetime import UTC, datetime, timedelta

    with host(store, settings, OFFER.model_copy(update={"slots": 1}), working=False) as one:
        submit(store, make_job("job-busy"))
        until(lambda: one.runs, what="a busy slot")
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        submit(store, make_job("job-1", state=JobState.HELD, held_until=due))
        until(lambda: store.job("job-1").state is JobState.QUEUED, what="its release")
        one.gate.set()
        over(store, 2)


def test_a_message_for_a_lease_that_is_not_held_runs_nothing(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A41."""
    submit(store, make_job("job-1"))
    with host(store, settings) as one:
        over(store, 1)
        (lease,) = one.runs
        message = b'{"id": "x", "name": "worker.tasks.run_attempt", "args": ["job-1", "%s"]}' % lease.token.encode()
        task = one.consumer.huey.deserialize_task(message)
        one.consumer.huey.execute(task)
    assert len(one.runs) == 1
    assert "action=drop job=job-1" in caplog.text
