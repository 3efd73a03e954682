"""``needs`` and ``deadline``: jobs that wait for others, and jobs that are over at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from tatin_jobs.errors import BadInput
from tatin_jobs.models import Job, Lease
from tatin_jobs.states import HeldFor, JobState, Outcome, Reason
from tatin_jobs.store import BeatAnswer, Store
from tests.support.stores import LEASE_SECONDS, OFFER, client_of, dump, make_job, submit

_nonces = count()
PAST = datetime.now(UTC) - timedelta(hours=1)
FAR = datetime(2099, 1, 1, tzinfo=UTC)


def needing(job_id: str, *needs: str, **more: Any) -> Job:
    return make_job(job_id, state=JobState.HELD, needs=needs, **more)


def due(job_id: str, deadline: datetime, **more: Any) -> Job:
    made = make_job(job_id, **more)
    return made.model_copy(update={"spec": made.spec.model_copy(update={"deadline": deadline})})


def take(store: Store) -> Lease | None:
    return store.claim("w1", OFFER, [], f"n{next(_nonces)}", LEASE_SECONDS)


def run_one(store: Store, outcome: Outcome = Outcome.SUCCEEDED, reason: Reason | None = None) -> str:
    lease = take(store)
    assert lease is not None
    store.finish(lease, outcome, reason)
    store.settle_needs()
    return lease.job.id


def test_a_job_runs_when_all_that_it_needs_have_succeeded(store: Store) -> None:
    submit(store, make_job("job-a"), make_job("job-b"), needing("job-c", "job-a", "job-b"), needing("job-d", "job-c"))
    waiting = store.job("job-c")
    assert (waiting.state, waiting.held_for, waiting.needs) == (JobState.HELD, HeldFor.NEEDS, ("job-a", "job-b"))
    assert [run_one(store) for _ in range(2)] == ["job-a", "job-b"]
    assert store.job("job-c").state is JobState.QUEUED
    assert [run_one(store) for _ in range(2)] == ["job-c", "job-d"]
    assert client_of(store).keys("tatin:need*") == []
    assert client_of(store).zcard("tatin:settle") == 0
    assert store.misplaced() == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED])
def test_when_one_does_not_succeed_all_that_need_it_end_and_say_why(store: Store, outcome: Outcome) -> None:
    submit(store, make_job("job-a"), needing("job-b", "job-a"), needing("job-c", "job-b"))
    run_one(store, outcome, Reason.VERIFY)
    store.settle_needs()
    for job_id, needed in (("job-b", "job-a"), ("job-c", "job-b")):
        job = store.job(job_id)
        assert (job.state, job.outcome, job.reason) == (JobState.FINISHED, Outcome.CANCELLED, Reason.NEEDS)
        assert needed in job.message
    assert store.misplaced() == []


def test_a_need_that_is_over_already_counts(store: Store) -> None:
    submit(store, make_job("job-good"), make_job("job-bad"))
    run_one(store)
    run_one(store, Outcome.FAILED, Reason.AGENT)
    submit(store, needing("job-1", "job-good"), needing("job-2", "job-bad"))
    store.settle_needs()
    assert store.job("job-1").state is JobState.QUEUED
    assert store.job("job-2").reason is Reason.NEEDS


def test_a_need_that_is_no_job_is_refused(store: Store) -> None:
    before = dump(store)
    with pytest.raises(BadInput, match="needs 'job-nowhere'"):
        submit(store, make_job("job-1"), needing("job-2", "job-nowhere"))
    assert dump(store) == before


def test_a_released_hold_still_waits_for_its_needs_and_a_second_release_does_not(store: Store) -> None:
    submit(store, make_job("job-a"), needing("job-b", "job-a"), make_job("job-t", state=JobState.HELD, held_until=FAR))
    for job_id, why in (("job-b", HeldFor.NEEDS), ("job-t", HeldFor.TIME)):
        store.hold(job_id)
        assert store.job(job_id).held_for is HeldFor.PERSON
        assert store.release(job_id).held_for is why
        assert store.release(job_id).state is JobState.QUEUED
    run_one(store, Outcome.FAILED, Reason.AGENT)
    assert store.job("job-b").state is JobState.QUEUED


def test_what_a_person_holds_stays_held_when_its_needs_are_met(store: Store) -> None:
    submit(store, make_job("job-a"), needing("job-b", "job-a"))
    store.hold("job-b")
    run_one(store)
    assert store.job("job-b").held_for is HeldFor.PERSON
    assert store.release("job-b").state is JobState.QUEUED


def test_needs_and_a_time_are_both_waited_for(store: Store) -> None:
    submit(store, make_job("job-a"), needing("job-b", "job-a", held_until=FAR))
    run_one(store)
    job = store.job("job-b")
    assert (job.state, job.held_for, job.held_until) == (JobState.HELD, HeldFor.TIME, FAR)


def test_a_job_that_others_wait_for_is_not_forgotten_before_they_know(store: Store) -> None:
    submit(store, make_job("job-a"), needing("job-b", "job-a"))
    store.cancel("job-a")
    assert store.forget(["job-a"]) == 0
    store.settle_needs()
    assert store.forget(["job-a"]) == 1


def test_many_that_wait_for_one_are_settled_in_portions(store: Store) -> None:
    submit(store, make_job("job-a"), *(needing(f"job-{index}", "job-a") for index in range(25)))
    lease = take(store)
    assert lease is not None
    store.finish(lease, Outcome.SUCCEEDED)
    assert [store.settle_needs(10) for _ in range(4)] == [10, 10, 5, 0]
    assert store.counts()[JobState.QUEUED] == 25


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.HELD])
def test_what_waits_at_its_deadline_is_over(store: Store, state: JobState) -> None:
    submit(store, due("job-1", PAST, state=state), due("job-2", FAR))
    assert store.end_overdue() == 1
    job = store.job("job-1")
    assert (job.state, job.outcome, job.reason) == (JobState.FINISHED, Outcome.TIMED_OUT, Reason.DEADLINE)
    assert store.job("job-2").state is JobState.QUEUED
    assert store.end_overdue() == 0


@pytest.fixture
def overdue(store: Store) -> Lease:
    submit(store, due("job-1", PAST))
    lease = take(store)
    assert lease is not None
    assert store.end_overdue() == 1
    return lease


def test_the_holder_learns_of_its_deadline_with_a_beat(store: Store, overdue: Lease) -> None:
    assert store.beat({overdue.token: "job-1"}, LEASE_SECONDS) == {overdue.token: BeatAnswer.OVERDUE}
    assert store.finish(overdue, Outcome.TIMED_OUT, Reason.DEADLINE) is Outcome.TIMED_OUT


def test_a_success_that_came_before_the_holder_knew_stands(store: Store, overdue: Lease) -> None:
    assert store.finish(overdue, Outcome.SUCCEEDED) is Outcome.SUCCEEDED


@pytest.mark.parametrize("how", ["given back", "taken away"])
def test_an_overdue_job_is_not_queued_again(store: Store, overdue: Lease, how: str) -> None:
    if how == "given back":
        state = store.requeue(overdue, message="", delay_seconds=60, counted=True)
    else:
        state = store.reap("job-1", store.beats()["job-1"], 2) or JobState.QUEUED
    assert state is JobState.FINISHED
    assert store.job("job-1").reason is Reason.DEADLINE


def test_a_worker_name_belongs_to_one_home(store: Store) -> None:
    """F09 is in tests/integration too, with two workers."""
    store.enroll("w1", "aaaaaaaa")
    store.enroll("w1", "aaaaaaaa")
    submit(store, make_job("job-1"))
    store.enroll("w1", "bbbbbbbb")  # the first never announced itself: its name is free
    assert store.claim("w1", OFFER, [], "n1", LEASE_SECONDS, home_id="aaaaaaaa") is None
    assert store.claim("w1", OFFER, [], "n2", LEASE_SECONDS, home_id="bbbbbbbb") is not None
