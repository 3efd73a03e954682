"""Limits and broken routes at the end of an attempt: what the store is told, and which guests are not believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tatin_jobs.gates import ROUTE_FAILURES
from tatin_jobs.models import AttemptSummary, JobSpec, Lease, Model, Repo
from tatin_jobs.results import RouteFacts
from tatin_jobs.states import HeldFor, JobState, Outcome, Reason
from tests.support.stores import LEASE_SECONDS, OFFER, FakeStore, client_of, fake_store, make_job, submit
from worker import holds
from worker.acceptance import accept
from worker.control import Control
from worker.ending import MAX_UNSEEN_WAITS, Ending, Fate, fate
from worker.gateway.quota import QuotaSeen
from worker.gateway.usage import BUDGET, CLOSED, TOO_LARGE, RouteUsage
from worker.holds import MAX_ROUTE_FAILURES, pause_seconds, seen_at, watch_probe

NOW = datetime(2026, 3, 1, 1, 0, tzinfo=UTC)
LIMIT = Ending(Outcome.FAILED, Reason.QUOTA, "usage limit", route=RouteFacts(limit="resets at 05:00"))
ONLY_SAID = Ending(Outcome.FAILED, Reason.QUOTA, "usage limit", route=RouteFacts(worked=True))
BROKEN = Ending(Outcome.FAILED, Reason.PROVIDER, "502", route=RouteFacts(worked=False, message="502"))
SPEC = JobSpec(
    name="job",
    repo=Repo(url="https://example.invalid/app.git"),
    tool="command",
    model=Model(name="m", provider="p"),
    account="max-1",
)


@pytest.fixture
def store() -> FakeStore:
    store = fake_store()
    submit(store, *(make_job(f"job-{index}", spec=SPEC) for index in range(6)))
    return store


def take(store: FakeStore, nonce: str) -> Lease:
    lease = store.claim("w1", OFFER, [], nonce, LEASE_SECONDS)
    assert lease is not None
    return lease


async def end(store: FakeStore, lease: Lease, ending: Ending) -> JobState | None:
    return await accept(store, lease, ending, AttemptSummary(), Control())


async def test_a_limit_that_the_gateway_saw_holds_the_account_and_burns_no_retry(store: FakeStore) -> None:
    """F49."""
    assert await end(store, take(store, "n1"), LIMIT) is JobState.QUEUED
    job = store.job("job-0")
    assert (job.state, job.held_for, job.retries_used) == (JobState.HELD, HeldFor.QUOTA, 0)
    assert "max-1" in job.message
    assert "resets at 05:00" in job.message
    assert store.job("job-1").held_for is HeldFor.QUOTA


async def test_a_limit_that_only_the_guest_tells_of_holds_its_own_job(store: FakeStore) -> None:
    """Promise 6: an agent that prints a limit stops nobody else."""
    assert await end(store, take(store, "n1"), ONLY_SAID) is JobState.HELD
    assert store.job("job-1").state is JobState.QUEUED
    assert store.gates() == []


def test_what_only_the_guest_says_is_not_believed_for_ever() -> None:
    """Promise 5."""
    fates = []
    for attempt in range(1, MAX_UNSEEN_WAITS + 2):
        job = make_job("job-1").model_copy(update={"attempt": attempt})
        fates.append(fate(ONLY_SAID, job))
    assert fates == [*[Fate.WAIT] * MAX_UNSEEN_WAITS, Fate.FINISH]


async def test_jobs_of_a_held_route_go_back_uncounted_and_the_ones_before_do_not(store: FakeStore) -> None:
    """F49."""
    states = [await end(store, take(store, f"n{index}"), BROKEN) for index in range(ROUTE_FAILURES)]
    assert states == [JobState.FINISHED, JobState.FINISHED, JobState.QUEUED]
    job = store.job("job-2")
    assert (job.state, job.held_for, job.retries_used) == (JobState.HELD, HeldFor.ROUTE, 0)


async def test_a_job_that_breaks_its_route_ends(store: FakeStore) -> None:
    """Promise 5: else one job that kills its model server holds all others for ever."""
    for index in range(ROUTE_FAILURES):
        await end(store, take(store, f"n{index}"), BROKEN)
    states = []
    for index in range(MAX_ROUTE_FAILURES):
        for key in client_of(store).keys("tatin:gate:*"):
            client_of(store).hset(key, "until", "1000")
        states.append(await end(store, take(store, f"p{index}"), BROKEN))
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FINISHED]
    assert store.job("job-2").reason is Reason.PROVIDER


async def test_a_probe_opens_its_route_with_the_first_good_answer(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not hours later, with the end of its attempt."""
    monkeypatch.setattr(holds, "LOOK_SECONDS", 0.0)
    for index in range(ROUTE_FAILURES):
        await end(store, take(store, f"n{index}"), BROKEN)
    for key in client_of(store).keys("tatin:gate:*"):
        client_of(store).hset(key, "until", "1000")
    probe = take(store, "p")
    assert probe.probe
    usage = RouteUsage()
    usage.answered = 1
    await watch_probe(store, probe, usage)
    assert store.gates() == []


def test_a_reset_is_waited_for_with_some_chance_and_an_unknown_one_for_half_an_hour() -> None:
    waits = [pause_seconds(NOW + timedelta(hours=4), NOW) for _ in range(20)]
    assert all(4 * 3600 <= wait <= 4 * 3600 + holds.JITTER_SECONDS for wait in waits)
    assert len(set(waits)) > 1
    assert 1800 <= pause_seconds(None, NOW) <= 1800 + holds.JITTER_SECONDS
    assert pause_seconds(NOW - timedelta(hours=1), NOW) >= holds.SHORTEST_SECONDS


def test_what_the_gateway_saw() -> None:
    assert seen_at(None) is None
    usage = RouteUsage()
    assert seen_at(usage) == RouteFacts()
    usage.answered = 1
    assert seen_at(usage) == RouteFacts(worked=True)
    usage.failed("502", "The provider is down.")
    assert seen_at(usage) == RouteFacts(worked=False, message="The provider is down.")
    usage.failed("429", "Too much.")
    usage.quota = QuotaSeen(None, "limit reached")
    assert seen_at(usage) == RouteFacts(limit="limit reached")
    usage.failed("400", "It asked for something wrong.")
    assert seen_at(usage) == RouteFacts()


@pytest.mark.parametrize("kind", [BUDGET, TOO_LARGE, CLOSED])
def test_what_this_side_cut_off_says_nothing_of_the_route(kind: str) -> None:
    """Else three jobs that have spent their budgets hold it for all others."""
    usage = RouteUsage(answered=3)
    usage.failed(kind, "The budget is used up.")
    assert seen_at(usage) == RouteFacts()
