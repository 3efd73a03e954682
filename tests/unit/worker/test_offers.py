"""Results on this disk that the store has not accepted are offered to it until it has (F20, F26)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.home import Home
from tatin_jobs.models import Lease
from tatin_jobs.results import Result, RouteFacts, read_result, write_result
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.cli import make_result
from tests.support.stores import LEASE_SECONDS, OFFER, FakeStore, client_of, fake_store, make_job, submit
from worker.offers import Offers, offer_attempt


@pytest.fixture
def store() -> FakeStore:
    return fake_store()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def lease(store: FakeStore) -> Lease:
    submit(store, make_job("job-1"))
    return _claim(store)


def _claim(store: FakeStore) -> Lease:
    lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert lease is not None
    return lease


def _written(home: Home, lease: Lease, **fields: Any) -> Path:
    folder = home.attempt(lease.job.id, lease.attempt)
    folder.mkdir(parents=True)
    write_result(folder, make_result(lease.job, lease.attempt, **{"token": lease.token, **fields}))
    return folder


def _read(folder: Path) -> Result:
    found = read_result(folder)
    assert found is not None
    return found


def test_a_result_of_a_lease_that_nobody_holds_is_accepted(store: FakeStore, home: Home, lease: Lease) -> None:
    folder = _written(home, lease, accepted=False)
    Offers(store, home, dict).tick()
    job = store.job("job-1")
    assert (job.state, job.outcome, job.deaths) == (JobState.FINISHED, Outcome.SUCCEEDED, 0)
    assert job.summary is not None
    assert _read(folder).accepted


def test_an_attempt_that_still_runs_tells_its_own_end(store: FakeStore, home: Home, lease: Lease) -> None:
    _written(home, lease)
    Offers(store, home, lambda: {lease.token: "job-1"}).tick()
    assert store.job("job-1").state is JobState.RUNNING


def test_a_job_that_was_handed_back_is_queued_again(store: FakeStore, home: Home, lease: Lease) -> None:
    folder = _written(home, lease, state=JobState.QUEUED, outcome=Outcome.FAILED, reason=Reason.WORKER)
    Offers(store, home, dict).tick()
    assert store.job("job-1").state is JobState.QUEUED
    assert not _read(folder).accepted


@pytest.mark.parametrize(
    "waits",
    [
        {"reason": Reason.QUOTA, "reset_at": datetime.now(UTC) + timedelta(hours=10)},
        {"reason": Reason.SANDBOX, "wait_seconds": 36_000},
    ],
)
def test_a_job_that_was_to_wait_is_held(store: FakeStore, home: Home, lease: Lease, waits: dict[str, Any]) -> None:
    """Its account is at a limit, or its host was busy: neither is the job's fault, and no retry is counted."""
    folder = _written(home, lease, outcome=Outcome.FAILED, **waits)
    Offers(store, home, dict).tick()
    job = store.job("job-1")
    assert (job.state, job.outcome, job.retries_used) == (JobState.HELD, None, 0)
    assert job.held_until is not None
    assert job.held_until > datetime.now(UTC) + timedelta(hours=9)
    assert (_read(folder).state, _read(folder).accepted) == (JobState.HELD, False)


def test_a_result_tells_how_its_model_did(store: FakeStore, home: Home, lease: Lease) -> None:
    """So a job on a route that is found broken goes back uncounted, as it would have at once."""
    told: list[bool] = []
    tell_route = store.tell_route

    def seen(lease: Lease, *, worked: bool, message: str = "") -> Any:
        told.append(worked)
        return tell_route(lease, worked=worked, message=message)

    store.tell_route = seen  # type: ignore[method-assign]
    broken = RouteFacts(worked=False, message="502")
    _written(home, lease, outcome=Outcome.FAILED, reason=Reason.PROVIDER, route=broken)
    Offers(store, home, dict).tick()
    assert told == [False]


def test_a_superseded_result_is_kept_and_says_so(store: FakeStore, home: Home, lease: Lease) -> None:
    """I2: what the newer attempt does is undisturbed."""
    folder = _written(home, lease)
    store.reap("job-1", store.beats()["job-1"], 5)
    newer = store.claim("w2", OFFER, [], "n2", LEASE_SECONDS)
    assert newer is not None
    Offers(store, home, dict).tick()
    assert _read(folder).accepted, "it is not looked at: nothing in the store names its token"
    assert offer_attempt(store, folder, "job-1", lease.token)
    assert not _read(folder).accepted
    assert store.job("job-1").token == newer.token


def test_what_was_already_told_stays_as_it_was(store: FakeStore, home: Home, lease: Lease) -> None:
    folder = _written(home, lease)
    store.finish(lease, Outcome.SUCCEEDED)
    assert offer_attempt(store, folder, "job-1", lease.token)
    assert _read(folder).accepted
    assert [event.move for event in store.events("job-1")].count("finish") == 1


def test_a_cancel_that_was_accepted_before_counts(store: FakeStore, home: Home, lease: Lease) -> None:
    """F41."""
    folder = _written(home, lease)
    store.cancel("job-1")
    Offers(store, home, dict).tick()
    assert store.job("job-1").outcome is Outcome.CANCELLED
    assert _read(folder).outcome is Outcome.CANCELLED


def test_a_job_that_the_store_forgot_is_kept_here(store: FakeStore, home: Home, lease: Lease) -> None:
    """F26."""
    folder = _written(home, lease)
    client_of(store).flushall()
    assert offer_attempt(store, folder, "job-1", lease.token)
    assert not _read(folder).accepted
    assert _read(folder).outcome is Outcome.SUCCEEDED


def test_a_store_that_came_back_with_the_lease_gets_the_result_again(
    store: FakeStore, home: Home, lease: Lease
) -> None:
    """F26: it was accepted once, and the store has gone back to before that."""
    folder = _written(home, lease)
    client = client_of(store)
    before = {key: client.dump(key) for key in client.keys("*")}
    assert offer_attempt(store, folder, "job-1", lease.token)
    client.flushall()
    for key, value in before.items():
        client.restore(key, 0, value)
    assert store.job("job-1").state is JobState.RUNNING
    Offers(store, home, dict).tick()
    assert store.job("job-1").outcome is Outcome.SUCCEEDED


def test_a_store_that_is_away_leaves_the_result_as_it_is(
    store: FakeStore, home: Home, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _written(home, lease)

    def away(*_: object) -> None:
        raise StoreUnavailable("The store does not answer.")

    monkeypatch.setattr(FakeStore, "finish", away)
    assert offer_attempt(store, folder, "job-1", lease.token)
    assert _read(folder).accepted
    monkeypatch.undo()
    Offers(store, home, dict).tick()
    assert store.job("job-1").outcome is Outcome.SUCCEEDED


def test_another_tokens_result_is_not_offered(store: FakeStore, home: Home, lease: Lease) -> None:
    folder = _written(home, lease, token="s:1")
    assert not offer_attempt(store, folder, "job-1", lease.token)
    assert not offer_attempt(store, folder / "none", "job-1", lease.token)
