"""Gates: an account at its limit, a model route that fails, a queue that a person holds. No job is moved for them."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from tatin_jobs.errors import LeaseLost, WrongState
from tatin_jobs.gates import ROUTE_FAILURES, GateKind, account_gate, route_gate
from tatin_jobs.models import Job, Lease, Model
from tatin_jobs.states import HeldFor, JobState, Outcome
from tatin_jobs.store import Store
from tests.support.stores import LEASE_SECONDS, OFFER, client_of, make_job, submit

_nonces = count()
MODEL = Model(name="qwen3-coder", provider="ollama")


def job_of(job_id: str, *, account: str | None = None, model: Model | None = None, **more: Any) -> Job:
    made = make_job(job_id, **more)
    return made.model_copy(update={"spec": made.spec.model_copy(update={"account": account, "model": model})})


def take(store: Store) -> Lease | None:
    return store.claim("w1", OFFER, [], f"n{next(_nonces)}", LEASE_SECONDS)


def taken(store: Store) -> Lease:
    lease = take(store)
    assert lease is not None
    return lease


def give_back(store: Store, lease: Lease) -> None:
    store.requeue(lease, message="", delay_seconds=0, counted=False)


def meet_limit(store: Store, lease: Lease, seconds: float) -> None:
    store.meet_limit(lease, delay_seconds=seconds, message="The limit of 'max-1' is reached.")
    give_back(store, lease)


def let_time_pass(store: Store, gate: str | None) -> None:
    client_of(store).hset(f"tatin:gate:{gate}", "until", "1000")


def test_an_account_at_its_limit_holds_all_its_jobs_and_no_other(store: Store) -> None:
    """F49."""
    submit(store, *(job_of(f"job-{index}", account="max-1") for index in range(3)), job_of("job-other", account="b"))
    meet_limit(store, taken(store), 3600)
    assert taken(store).job.id == "job-other"
    assert take(store) is None
    shown = store.job("job-2")
    assert (shown.state, shown.held_for, shown.message) == (
        JobState.HELD,
        HeldFor.QUOTA,
        "The limit of 'max-1' is reached.",
    )
    assert shown.held_until is not None
    assert store.job("job-0").retries_used == 0
    assert store.counts() == {
        JobState.QUEUED: 0,
        JobState.HELD: 3,
        JobState.RUNNING: 1,
        JobState.FINISHED: 0,
    }
    assert {job.id for job in store.list_jobs(states=[JobState.HELD])} == {"job-0", "job-1", "job-2"}
    assert store.list_jobs(states=[JobState.QUEUED]) == []
    assert [(gate.kind, gate.name) for gate in store.gates()] == [(GateKind.ACCOUNT, "max-1")]
    assert store.misplaced() == []


def test_after_the_reset_each_has_its_old_place(store: Store) -> None:
    """F49."""
    submit(store, *(job_of(f"job-{index}", account="max-1") for index in range(3)))
    meet_limit(store, taken(store), 3600)
    let_time_pass(store, account_gate(job_of("x", account="max-1").spec))
    assert store.job("job-1").state is JobState.QUEUED
    assert [taken(store).job.id for _ in range(3)] == ["job-0", "job-1", "job-2"]
    store.release_due()
    assert client_of(store).keys("tatin:gate*") == []


def test_the_later_of_two_resets_counts(store: Store) -> None:
    submit(store, job_of("job-1", account="a"), job_of("job-2", account="a"), job_of("job-3", account="a"))
    first, second = taken(store), taken(store)
    meet_limit(store, first, 7200)
    meet_limit(store, second, 60)
    [gate] = store.gates()
    assert gate.until is not None
    assert (gate.until - store.job("job-1").created_at).total_seconds() > 0
    assert float(client_of(store).hget(f"tatin:gate:{gate.id}", "until")) - store._now_ms() > 7000_000


def test_an_old_attempt_closes_no_gate(store: Store) -> None:
    """I2."""
    submit(store, job_of("job-1", account="a", model=MODEL))
    old = taken(store)
    give_back(store, old)
    with pytest.raises(LeaseLost):
        store.meet_limit(old, delay_seconds=60, message="")
    with pytest.raises(LeaseLost):
        store.tell_route(old, worked=False)
    assert store.gates() == []


def test_a_person_takes_one_job_past_its_closed_gate_and_the_next_attempt_meets_it_again(store: Store) -> None:
    submit(store, *(job_of(f"job-{index}", account="max-1") for index in range(3)))
    meet_limit(store, taken(store), 3600)
    assert store.release("job-2").state is JobState.QUEUED
    lease = taken(store)
    assert lease.job.id == "job-2"
    assert take(store) is None
    give_back(store, lease)
    assert store.job("job-2").state is JobState.HELD
    assert take(store) is None
    assert store.misplaced() == []


def test_a_person_opens_an_account(store: Store) -> None:
    submit(store, job_of("job-1", account="max-1"))
    meet_limit(store, taken(store), 3600)
    [gate] = store.gates()
    assert store.open_gate(gate.id)
    assert not store.open_gate(gate.id)
    assert taken(store).job.id == "job-1"


def fail(store: Store, times: int) -> None:
    for _ in range(times):
        lease = taken(store)
        store.tell_route(lease, worked=False, message="502")
        give_back(store, lease)


def test_a_route_that_fails_three_times_in_a_row_is_held(store: Store) -> None:
    """F49."""
    submit(store, job_of("job-1", model=MODEL), job_of("job-2", model=MODEL), job_of("job-plain"))
    fail(store, ROUTE_FAILURES - 1)
    assert store.job("job-1").state is JobState.QUEUED
    fail(store, 1)
    assert (store.job("job-1").state, store.job("job-1").held_for) == (JobState.HELD, HeldFor.ROUTE)
    assert [gate.name for gate in store.gates()] == ["ollama/qwen3-coder"]
    assert taken(store).job.id == "job-plain"
    assert take(store) is None


def test_failures_with_a_success_between_them_hold_nothing(store: Store) -> None:
    submit(store, job_of("job-1", model=MODEL))
    for worked in (False, False, True, False, False):
        lease = taken(store)
        assert not store.tell_route(lease, worked=worked).held
        give_back(store, lease)
    assert store.gates() == []


def test_one_job_probes_a_held_route_and_its_success_opens_it(store: Store) -> None:
    """F49."""
    submit(store, *(job_of(f"job-{index}", model=MODEL) for index in range(3)))
    fail(store, ROUTE_FAILURES)
    gate = route_gate(job_of("x", model=MODEL).spec)
    let_time_pass(store, gate)
    assert store.job("job-1").state is JobState.HELD, "it is shown as held: only the probe goes through"
    probe = taken(store)
    assert probe.probe
    assert take(store) is None, "one probe at a time"
    assert store.tell_route(probe, worked=False).held
    give_back(store, probe)
    assert take(store) is None
    let_time_pass(store, gate)
    probe = taken(store)
    assert not store.tell_route(probe, worked=True).held
    assert [taken(store).probe for _ in range(2)] == [False, False]
    assert store.gates() == []


def test_a_probe_whose_reply_was_lost_is_still_the_probe(store: Store) -> None:
    """F24."""
    submit(store, job_of("job-1", model=MODEL))
    fail(store, ROUTE_FAILURES)
    let_time_pass(store, route_gate(job_of("x", model=MODEL).spec))
    for _ in range(2):
        lease = store.claim("w1", OFFER, [], "same", LEASE_SECONDS)
        assert lease is not None
        assert lease.probe


def test_a_held_queue_gives_nothing_and_takes_new_jobs(store: Store) -> None:
    submit(store, job_of("job-1"))
    running = taken(store)
    assert store.hold_queue()
    assert not store.hold_queue()
    submit(store, job_of("job-2"))
    assert take(store) is None
    assert (store.job("job-2").state, store.job("job-2").held_for) == (JobState.HELD, HeldFor.PERSON)
    with pytest.raises(WrongState):
        store.release("job-2")
    assert store.finish(running, Outcome.SUCCEEDED) is Outcome.SUCCEEDED
    assert store.release_queue()
    assert taken(store).job.id == "job-2"
