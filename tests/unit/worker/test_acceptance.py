"""How the end of an attempt reaches the store: once, whatever the store does meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.models import AttemptSummary, JobSpec, Lease, Repo, Retries
from tatin_jobs.states import JobState, Outcome, Reason
from tatin_jobs.store.scripts import TRIES
from tests.support.stores import LEASE_SECONDS, OFFER, FakeStore, fake_store, losing_replies, make_job, submit
from worker import acceptance
from worker.acceptance import accept
from worker.control import Control, Stop
from worker.ending import Ending

GOOD = Ending(Outcome.SUCCEEDED)
SANDBOX = Ending(Outcome.FAILED, Reason.SANDBOX, "It broke.")
BACK = Ending(Outcome.FAILED, Reason.WORKER, "Handed back.", hand_back=True)
SUMMARY = AttemptSummary(exit_status=0)


@pytest.fixture
def store() -> FakeStore:
    return fake_store()


@pytest.fixture
def lease(store: FakeStore) -> Lease:
    repo = Repo(url="https://example.invalid/app.git")
    spec = JobSpec(name="job", repo=repo, tool="command", retries=Retries(max=1))
    submit(store, make_job("job-1", spec=spec))
    lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("ending", "state"), [(GOOD, JobState.FINISHED), (SANDBOX, JobState.HELD), (BACK, JobState.QUEUED)]
)
async def test_an_ending_takes_the_job_where_it_belongs(
    store: FakeStore, lease: Lease, ending: Ending, state: JobState
) -> None:
    control = Control()
    assert await accept(store, lease, ending, SUMMARY, control) is state
    job = store.job("job-1")
    assert job.state is state
    assert job.retries_used == (ending is SANDBOX)
    assert control.interruption is None


async def test_a_last_retry_is_the_end(store: FakeStore, lease: Lease) -> None:
    used = lease.model_copy(update={"job": lease.job.model_copy(update={"retries_used": 1})})
    assert await accept(store, used, SANDBOX, SUMMARY, Control()) is JobState.FINISHED
    assert store.job("job-1").reason is Reason.SANDBOX


@pytest.mark.parametrize("ending", [GOOD, SANDBOX, BACK])
async def test_a_cancel_that_came_first_counts_and_is_told(store: FakeStore, lease: Lease, ending: Ending) -> None:
    """F41."""
    store.cancel("job-1")
    control = Control()
    assert await accept(store, lease, ending, SUMMARY, control) is JobState.FINISHED
    assert control.interruption is not None
    assert control.interruption.stop is Stop.CANCELLED
    assert store.job("job-1").outcome is Outcome.CANCELLED


async def test_an_old_attempt_learns_that_it_lost(store: FakeStore, lease: Lease) -> None:
    store.reap("job-1", store.beats()["job-1"], 5)
    control = Control()
    assert await accept(store, lease, GOOD, SUMMARY, control) is None
    assert control.lost
    assert store.job("job-1").state is JobState.QUEUED


async def test_an_end_waits_for_a_store_that_is_away(store: FakeStore, lease: Lease) -> None:
    """F20, F24: the reply to the first try is lost too."""
    with losing_replies(store, TRIES):
        assert await accept(store, lease, GOOD, SUMMARY, Control()) is JobState.FINISHED
    assert [event.move for event in store.events("job-1")].count("finish") == 1


@pytest.mark.parametrize("stop", [None, Stop.SHUTDOWN])
async def test_patience_with_a_store_that_stays_away_ends(
    store: FakeStore, lease: Lease, stop: Stop | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("The store cannot be reached.")

    monkeypatch.setattr(store, "finish", away)
    monkeypatch.setattr(acceptance, "PATIENCE_SECONDS", 10_000 if stop else 0)
    monkeypatch.setattr(acceptance, "_HURRIED_PATIENCE_SECONDS", 0 if stop else 10_000)
    control = Control()
    if stop:
        control.interrupt(stop)
    assert await accept(store, lease, GOOD, SUMMARY, control) is None
    assert not control.lost
