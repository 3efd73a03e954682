"""Claimer, Beats and Reaper against a store in memory: nonces, capacity, threads that must survive, monotonic time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.models import Need
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store.scripts import TRIES
from tests.support.stores import OFFER, SMALL, FakeStore, client_of, fake_store, losing_replies, make_job, submit
from tests.support.wait import until
from worker import leases
from worker.leases import Beats, Claimer, Reaper

LEASE = 60.0


@pytest.fixture
def store() -> FakeStore:
    return fake_store()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TROUBLE_SECONDS", 0.0)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.2)


def settings(**more: Any) -> Settings:
    return Settings(**{"home": Path("nowhere"), "worker_name": "w1", "lease_seconds": LEASE, **more})


@contextmanager
def claimer(
    store: FakeStore, *, lingering: tuple[Need, ...] = (), may_claim: Any = lambda: True, offer: Any = OFFER
) -> Iterator[Claimer]:
    made = Claimer(store, settings(), offer, lambda: lingering, may_claim)
    made.start()
    try:
        yield made
    finally:
        made.close()


def test_a_claimed_lease_is_held_until_it_is_released(store: FakeStore) -> None:
    submit(store, make_job("job-1"))
    with claimer(store) as one:
        lease = one.next()
        assert lease is not None
        assert one.held() == {lease.token: "job-1"}
        assert one.take("job-1", lease.token) == lease
        assert one.take("job-2", lease.token) is None
        assert one.take("job-1", "other:1") is None
        one.release(lease.token)
        assert one.held() == {}


def test_a_claim_whose_reply_is_lost_is_no_lost_claim(store: FakeStore) -> None:
    """F24."""
    submit(store, make_job("job-1"), make_job("job-2"))
    with claimer(store) as one:
        with losing_replies(store, TRIES):
            assert one.next() is None
        lease = one.next()
    assert lease is not None
    assert lease.job.id == "job-1"
    assert store.counts()[JobState.RUNNING] == 1


@pytest.mark.parametrize("why", ["closed", "may not claim"])
def test_a_worker_that_wants_nothing_new_still_learns_of_a_claim_whose_reply_was_lost(
    store: FakeStore, why: str
) -> None:
    """Else nobody would renew it, and its job would wait for a reaper and count a death."""
    submit(store, make_job("job-1"), make_job("job-2"))
    willing = True
    with claimer(store, may_claim=lambda: willing) as one:
        with losing_replies(store, TRIES):
            assert one.next() is None
        willing = False
        if why == "closed":
            one.close()
            assert one.next() is None
            assert store.job("job-1").state is JobState.QUEUED
            assert store.job("job-1").deaths == 0
        else:
            lease = one.next()
            assert lease is not None
            assert lease.job.id == "job-1"
        assert one.next() is None
    assert store.job("job-2").attempt == 0


def test_what_is_held_counts_also_when_the_store_has_forgotten_it(store: FakeStore) -> None:
    """F26, I4: a store from an old copy does not know the lease, and its sandbox is not made yet."""
    need = Need(cpus=OFFER.cpus, memory_mib=1, disk_mib=1)
    submit(store, make_job("job-1", need=need))
    with claimer(store) as one:
        assert one.next() is not None
        client_of(store).flushall()
        submit(store, make_job("job-2", need=need))
        assert one.poll() is None
    assert store.job("job-2").state is JobState.QUEUED


def test_a_closed_claimer_claims_nothing(store: FakeStore) -> None:
    submit(store, make_job("job-1"))
    with claimer(store) as one:
        one.close()
        assert one.next() is None
    assert store.job("job-1").state is JobState.QUEUED


def test_a_job_that_is_claimed_while_the_worker_closes_is_handed_back(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, make_job("job-1"))
    with claimer(store) as one:
        real = store.claim

        def claim(*args: Any, **more: Any) -> Any:
            one.close()
            return real(*args, **more)

        monkeypatch.setattr(store, "claim", claim)
        assert one.next() is None
        assert one.held() == {}
    job = store.job("job-1")
    assert (job.state, job.retries_used, job.deaths) == (JobState.QUEUED, 0, 0)


def test_idle_slots_ask_once_between_them(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 idle slots are one question a second to the store, not 64."""
    asked = 0
    real = store.claim

    def claim(*args: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        return real(*args, **more)

    monkeypatch.setattr(store, "claim", claim)
    monkeypatch.setattr(leases, "POLL_SECONDS", 30.0)
    with claimer(store) as one:
        threads = [threading.Thread(target=one.next) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: asked >= 1, what="a first question")
        one.close()
        for thread in threads:
            thread.join()
    assert asked <= 2  # one more for a wake-up that came in between


def test_a_job_that_comes_is_taken_by_a_waiting_slot(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "POLL_SECONDS", 1.0)
    with claimer(store) as one:
        assert one.next() is None
        submit(store, make_job("job-1"))
        lease = until(one.next, what="a lease")
        assert lease is not None
        assert lease.job.id == "job-1"


def test_a_job_may_be_here_twice_and_its_old_attempt_ends_alone(store: FakeStore) -> None:
    """Its first attempt is still being cleared away when the second begins on the same host."""
    submit(store, make_job("job-1"))
    with claimer(store) as one:
        first = one.next()
        assert first is not None
        store.requeue(first, message="", delay_seconds=0, counted=True)
        one.ring()
        second = until(one.next, what="the second attempt")
        assert second is not None
        one.release(first.token)
        assert one.held() == {second.token: "job-1"}


def beats(store: FakeStore, one: Claimer) -> tuple[Beats, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    made = Beats(
        store,
        settings(),
        one.held,
        on_cancel=lambda token: told.append(("cancel", token)),
        on_lost=lambda token: told.append(("lost", token)),
        on_cut_off=lambda token: told.append(("cut off", token)),
    )
    return made, told


def test_a_beat_renews_and_passes_on_cancel_and_loss(store: FakeStore) -> None:
    submit(store, make_job("job-1"), make_job("job-2"), make_job("job-3"))
    with claimer(store) as one:
        held = [lease for lease in (one.next(), one.next(), one.next()) if lease]
        before = store.beats()
        beat, told = beats(store, one)
        beat.tick(0)
        assert told == []
        assert all(before[job] != now for job, now in store.beats().items())
        store.cancel("job-1")
        store.reap("job-2", store.beats()["job-2"], 5)
        store.finish(held[2], Outcome.SUCCEEDED)
        beat.tick(1)
        assert told == [("cancel", held[0].token), ("lost", held[1].token)]


def test_attempts_that_cannot_be_renewed_for_too_long_are_given_up(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8, F34: a short outage costs nothing; cut off for a quarter of an hour, somebody else may run the job."""
    submit(store, make_job("job-1"))
    with claimer(store) as one:
        lease = one.next()
        assert lease is not None
        beat, told = beats(store, one)
        beat.tick(1000.0)

        def away(*args: Any) -> Any:
            raise StoreUnavailable("The store cannot be reached.")

        monkeypatch.setattr(FakeStore, "beat", away)
        limit = settings().cut_off_seconds
        for now in (1001.0, 1000.0 + limit):
            with pytest.raises(StoreUnavailable):
                beat.tick(now)
        assert told == []
        with pytest.raises(StoreUnavailable):
            beat.tick(1001.0 + limit)
        assert told == [("cut off", lease.token)]


def test_an_emptied_store_takes_no_attempt_away(store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """F26: nobody else can run what the store does not know."""
    submit(store, make_job())
    with claimer(store) as one:
        assert one.next()
        beat, told = beats(store, one)
        client_of(store).flushall()
        beat.tick(0)
        assert told == []
        assert "action=forgotten" in caplog.text


def test_the_beats_go_on_whatever_goes_wrong(store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def held() -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a fault")
        return {}

    made = Beats(store, settings(beat_seconds=0.05), held, on_cancel=print, on_lost=print, on_cut_off=print)
    made.start()
    until(lambda: calls >= 2, what="a beat behind the fault")
    made.stop()
    assert "action=beat failed" in caplog.text


def test_a_silent_store_is_given_less_than_a_third_of_a_lease(store: FakeStore) -> None:
    """I10: two tries in silence and the next beat still comes in time."""
    made = Beats(store, settings(), dict, on_cancel=print, on_lost=print, on_cut_off=print)
    limit = client_of(made._store).connection_pool.connection_kwargs["socket_timeout"]
    assert 2 * limit < LEASE / 3


class Watch:
    """A reaper with a hand on its clock."""

    def __init__(self, store: FakeStore, **more: Any) -> None:
        self.now = 5_000_000.0
        self.reaper = Reaper(store, settings(**more))

    def go(self, seconds: float, step: float = 5.0) -> None:
        """Tick every ``step`` seconds."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.reaper.tick(self.now)


@pytest.fixture
def running(store: FakeStore) -> str:
    submit(store, make_job("job-1"))
    lease = store.claim("w2", OFFER, [], "n1", LEASE)
    assert lease is not None
    return lease.token


def test_a_silent_holder_loses_its_job_after_a_whole_lease(store: FakeStore, running: str) -> None:
    watch = Watch(store)
    watch.go(5)
    watch.go(LEASE - 5)
    assert store.job("job-1").state is JobState.RUNNING
    watch.go(5)
    job = store.job("job-1")
    assert (job.state, job.deaths) == (JobState.QUEUED, 1)


def test_a_holder_that_beats_keeps_its_job_however_long(store: FakeStore, running: str) -> None:
    watch = Watch(store)
    for _ in range(10):
        watch.go(LEASE - 10)
        store.beat({running: "job-1"}, LEASE)
    assert store.job("job-1").state is JobState.RUNNING


def test_no_wall_clock_decides_that_a_holder_is_dead(
    store: FakeStore, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F07, F08: the store's and this host's clock jump by days, both ways."""
    import time

    real = time.time
    watch = Watch(store)
    for jump in (86_400 * 30, -86_400 * 30):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        watch.go(LEASE - 10)
        store.beat({running: "job-1"}, LEASE)
    assert store.job("job-1").state is JobState.RUNNING


def test_an_outage_makes_the_reaper_watch_anew(store: FakeStore, running: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """I9, F23."""
    watch = Watch(store)
    watch.go(LEASE - 5)
    with monkeypatch.context() as patch:
        patch.setattr(store, "beats", _unavailable)
        with pytest.raises(StoreUnavailable):
            watch.go(5)
    watch.go(LEASE - 5)
    assert store.job("job-1").state is JobState.RUNNING
    watch.go(10)
    assert store.job("job-1").state is JobState.QUEUED


def _unavailable() -> Any:
    raise StoreUnavailable("The store cannot be reached.")


def test_another_run_of_the_server_makes_the_reaper_watch_anew(store: FakeStore, running: str) -> None:
    """I9."""
    watch = Watch(store)
    watch.go(LEASE)
    store.run = "second"
    watch.go(LEASE)
    assert store.job("job-1").state is JobState.RUNNING
    watch.go(5)
    assert store.job("job-1").state is JobState.QUEUED


def test_a_reaper_that_was_frozen_has_not_watched(store: FakeStore, running: str) -> None:
    """F05: else a worker that wakes reaps the jobs that it holds itself, before its own first beat."""
    watch = Watch(store)
    watch.go(10)
    watch.now += 3 * LEASE
    watch.go(5)
    assert store.job("job-1").state is JobState.RUNNING


def test_a_short_lease_is_reaped_though_the_reaper_looks_rarely(store: FakeStore) -> None:
    submit(store, make_job("job-1"))
    store.claim("w2", OFFER, [], "n1", 2.0)
    watch = Watch(store, lease_seconds=2.0, reap_seconds=5.0)
    watch.go(15)
    assert store.job("job-1").state is JobState.QUEUED


@pytest.mark.parametrize("declared", ["inf", "nan", "1e9", "-1", "", "x"])
def test_a_lease_that_never_ends_is_not_believed(store: FakeStore, running: str, declared: str) -> None:
    """A43."""
    client_of(store).hset("tatin:beats", "job-1", f"{running}|0|{declared}")
    watch = Watch(store)
    watch.go(LEASE + 10)
    assert store.job("job-1").state is JobState.QUEUED


def test_the_reaper_goes_on_whatever_goes_wrong(store: FakeStore, caplog: pytest.LogCaptureFixture) -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 1:
            raise RuntimeError("a fault")

    reaper = Reaper(store, settings(reap_seconds=0.05), on_tick=tick)
    reaper.start()
    until(lambda: ticks >= 2, what="a round behind the fault")
    reaper.stop()
    assert "action=reap failed" in caplog.text


def test_lingering_sandboxes_stop_a_claim(store: FakeStore) -> None:
    """I4."""
    submit(store, make_job("job-1", need=SMALL.model_copy(update={"cpus": 4})))
    with claimer(store, lingering=(SMALL,)) as one:
        assert one.next() is None
    assert store.job("job-1").state is JobState.QUEUED
