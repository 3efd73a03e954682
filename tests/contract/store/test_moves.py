"""The moves of the table in ``tatin_jobs.states``: who may make which, and what each leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tatin_jobs.errors import BadInput, LeaseLost, TatinError, UnknownId, WrongState
from tatin_jobs.models import AttemptSummary, Lease
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tatin_jobs.store import BeatAnswer, Store
from tests.support.stores import LEASE_SECONDS, OFFER, dump, make_job, submit

FAR = datetime(2099, 1, 1, tzinfo=UTC)


def claim(store: Store, worker: str = "w1", nonce: str = "n1") -> Lease:
    lease = store.claim(worker, OFFER, [], nonce, LEASE_SECONDS)
    assert lease is not None
    return lease


@pytest.fixture
def lease(store: Store) -> Lease:
    submit(store, make_job("job-1"))
    return claim(store)


def reap(store: Store, max_deaths: int = 2) -> JobState | None:
    return store.reap("job-1", store.beats()["job-1"], max_deaths)


def test_submit_is_whole_or_not_at_all(store: Store) -> None:
    submit(store, make_job("job-1"), batch="b-one")
    before = dump(store)
    with pytest.raises(BadInput, match="'job-1' is taken"):
        submit(store, make_job("job-2"), make_job("job-1"), batch="b-two")
    assert dump(store) == before


def test_a_batch_that_names_a_job_twice_is_refused(store: Store) -> None:
    before = dump(store)
    with pytest.raises(BadInput):
        submit(store, make_job("job-1"), make_job("job-1"))
    assert dump(store) == before


def test_the_same_submit_again_makes_no_second_job(store: Store) -> None:
    """F40."""
    job = make_job("job-1", batch="b-one")
    batch = submit(store, job, batch="b-one")
    before = dump(store)
    assert store.submit(batch, [job]) is False
    assert dump(store) == before
    with pytest.raises(BadInput, match="taken by another submit"):
        store.submit(batch, [job.model_copy(update={"message": "other content"})])


@pytest.mark.parametrize("bad", ["", "a:b", "x*", "../x", "a b", "A", "job\n", "-x", "x" * 80])
def test_an_id_that_does_not_match_the_pattern_never_reaches_a_key(store: Store, bad: str) -> None:
    """A44."""
    before = dump(store)
    with pytest.raises(BadInput, match="is no id"):
        submit(store, make_job().model_copy(update={"id": bad}), batch="b-one")
    assert dump(store) == before


def test_a_job_is_submitted_waiting_and_nothing_else(store: Store) -> None:
    with pytest.raises(TatinError, match="cannot be submitted as running"):
        submit(store, make_job("job-1", state=JobState.RUNNING))


def test_held_by_time_is_released_when_due_and_not_before(store: Store) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    submit(
        store,
        make_job("job-due", state=JobState.HELD, held_until=past),
        make_job("job-later", state=JobState.HELD, held_until=FAR),
        make_job("job-person", state=JobState.HELD),
    )
    assert store.job("job-later").held_until == FAR
    assert store.job("job-person").held_until is None
    assert store.release_due() == 1
    assert [store.job(name).state for name in ("job-due", "job-later", "job-person")] == ["queued", "held", "held"]


def test_many_due_at_once_are_released_in_portions_and_none_is_lost(store: Store) -> None:
    """F43."""
    past = datetime.now(UTC) - timedelta(hours=1)
    submit(store, *(make_job(f"job-{index}", state=JobState.HELD, held_until=past) for index in range(25)))
    assert [store.release_due(10) for _ in range(4)] == [10, 10, 5, 0]
    assert store.counts()[JobState.QUEUED] == 25


def test_a_person_holds_and_releases(store: Store) -> None:
    submit(store, make_job("job-1"))
    assert store.hold("job-1").state is JobState.HELD
    assert store.claim("w1", OFFER, [], "n1", LEASE_SECONDS) is None
    assert store.release("job-1").state is JobState.QUEUED
    with pytest.raises(WrongState, match="'job-1' is queued and cannot be released"):
        store.release("job-1")


def test_a_person_can_release_what_a_time_holds_and_hold_it_for_good(store: Store) -> None:
    submit(store, make_job("job-1", state=JobState.HELD, held_until=FAR), make_job("job-2", state=JobState.HELD))
    assert store.release("job-1").held_until is None
    submit(store, make_job("job-3", state=JobState.HELD, held_until=datetime.now(UTC) - timedelta(hours=1)))
    assert store.hold("job-3").held_until is None
    assert store.release_due() == 0


def test_a_released_job_has_its_old_place_in_line(store: Store) -> None:
    submit(store, make_job("job-1"), make_job("job-2"))
    store.hold("job-1")
    store.release("job-1")
    assert store.place_in_line("job-1") == 1
    assert claim(store).job.id == "job-1"


def test_a_running_job_is_neither_held_nor_released(store: Store, lease: Lease) -> None:
    for move in (store.hold, store.release):
        with pytest.raises(WrongState, match="is running"):
            move("job-1")


@pytest.mark.parametrize("move", ["hold", "release", "cancel"])
def test_an_unknown_id_leaves_nothing_behind(store: Store, move: str) -> None:
    """F42."""
    before = dump(store)
    with pytest.raises(UnknownId):
        getattr(store, move)("job-nowhere")
    assert dump(store) == before


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.HELD])
def test_cancel_of_a_waiting_job_finishes_it(store: Store, state: JobState) -> None:
    """F41."""
    submit(store, make_job("job-1", state=state))
    job = store.cancel("job-1")
    assert (job.state, job.outcome, job.reason) == (JobState.FINISHED, Outcome.CANCELLED, None)
    assert store.claim("w1", OFFER, [], "n1", LEASE_SECONDS) is None
    with pytest.raises(WrongState, match="is finished"):
        store.cancel("job-1")


def test_cancel_of_a_running_job_reaches_its_holder_with_a_beat(store: Store, lease: Lease) -> None:
    assert store.beat({lease.token: "job-1"}, LEASE_SECONDS) == {lease.token: BeatAnswer.HELD}
    assert store.cancel("job-1").cancel_wanted
    assert store.beat({lease.token: "job-1"}, LEASE_SECONDS) == {lease.token: BeatAnswer.CANCEL}


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED])
def test_an_accepted_cancel_counts_however_the_attempt_ends(store: Store, lease: Lease, outcome: Outcome) -> None:
    """F41: a cancel races the end, and a person was told that it is cancelled."""
    store.cancel("job-1")
    assert store.finish(lease, outcome, message="as it was") is Outcome.CANCELLED
    assert store.finish(lease, outcome, message="as it was") is Outcome.CANCELLED
    job = store.job("job-1")
    assert (job.state, job.outcome, job.reason) == (JobState.FINISHED, Outcome.CANCELLED, None)


def test_a_cancel_behind_the_end_is_refused(store: Store, lease: Lease) -> None:
    store.finish(lease, Outcome.SUCCEEDED)
    with pytest.raises(WrongState, match="is finished"):
        store.cancel("job-1")
    assert store.job("job-1").outcome is Outcome.SUCCEEDED


def test_a_cancelled_job_is_not_given_back(store: Store, lease: Lease) -> None:
    """F41."""
    store.cancel("job-1")
    state = store.requeue(lease, message="handed back", delay_seconds=0, counted=False)
    assert state is JobState.FINISHED
    assert store.job("job-1").outcome is Outcome.CANCELLED


def test_a_cancelled_job_whose_holder_died_is_not_run_again(store: Store, lease: Lease) -> None:
    """F41."""
    store.cancel("job-1")
    assert reap(store) is JobState.FINISHED
    assert store.job("job-1").outcome is Outcome.CANCELLED


def test_the_end_is_recorded_with_its_summary(store: Store, lease: Lease) -> None:
    summary = AttemptSummary(exit_status=1, patch_bytes=12, final_text="[bold]no[/bold]")
    assert store.finish(lease, Outcome.FAILED, Reason.VERIFY, "The tests failed.", summary) is Outcome.FAILED
    job = store.job("job-1")
    assert (job.outcome, job.reason, job.message) == (Outcome.FAILED, Reason.VERIFY, "The tests failed.")
    assert job.summary == summary
    assert job.finished_at is not None
    assert job.step is None


def test_finished_is_written_once(store: Store, lease: Lease) -> None:
    """I3."""
    store.finish(lease, Outcome.SUCCEEDED)
    before = dump(store)
    for outcome in (Outcome.FAILED, Outcome.LOST):
        with pytest.raises(LeaseLost):
            store.finish(lease, outcome)
    with pytest.raises(LeaseLost):
        store.requeue(lease, message="", delay_seconds=0, counted=True)
    assert dump(store) == before


def test_a_job_given_back_keeps_its_place_and_counts_the_retry(store: Store, lease: Lease) -> None:
    submit(store, make_job("job-2"))
    assert store.requeue(lease, message="again", delay_seconds=0, counted=True) is JobState.QUEUED
    job = store.job("job-1")
    assert (job.state, job.retries_used, job.message) == (JobState.QUEUED, 1, "again")
    second = claim(store, "w2", "n2")
    assert (second.job.id, second.attempt) == ("job-1", 2)
    assert store.requeue(second, message="drained", delay_seconds=0, counted=False) is JobState.QUEUED
    assert store.job("job-1").retries_used == 1


def test_a_backoff_holds_until_its_time(store: Store, lease: Lease) -> None:
    assert store.requeue(lease, message="again", delay_seconds=3600, counted=True) is JobState.HELD
    until = store.job("job-1").held_until
    assert until is not None
    assert until > datetime.now(UTC) + timedelta(minutes=50)
    assert store.release_due() == 0


@pytest.mark.parametrize("how", ["finished", "given back", "taken away"])
def test_the_old_token_writes_nothing_more(store: Store, lease: Lease, how: str) -> None:
    """I2, A78: a holder whose lease is gone changes neither record nor log."""
    if how == "finished":
        store.finish(lease, Outcome.SUCCEEDED)
    elif how == "given back":
        store.requeue(lease, message="", delay_seconds=0, counted=False)
        claim(store, "w2", "n2")
    else:
        reap(store)
        claim(store, "w2", "n2")
    before = dump(store)
    for write in (
        lambda: store.finish(lease, Outcome.FAILED, steps=[Step.AGENT]),
        lambda: store.set_step(lease, Step.AGENT),
        lambda: store.write_log(lease, [("stdout", b"late")]),
    ):
        with pytest.raises(LeaseLost):
            write()
    answer = store.beat({lease.token: "job-1"}, LEASE_SECONDS)[lease.token]
    assert answer is (BeatAnswer.LOST if how == "taken away" else BeatAnswer.OVER)
    assert dump(store) == before


def test_a_death_is_counted_apart_from_retries_and_too_many_are_the_end(store: Store, lease: Lease) -> None:
    """F47."""
    assert reap(store, max_deaths=2) is JobState.QUEUED
    job = store.job("job-1")
    assert (job.deaths, job.retries_used, job.attempt) == (1, 0, 1)
    claim(store, "w2", "n2")
    assert reap(store, max_deaths=2) is JobState.FINISHED
    job = store.job("job-1")
    assert (job.outcome, job.reason, job.deaths) == (Outcome.LOST, Reason.WORKER, 2)


def test_a_reaper_that_saw_an_older_beat_takes_nothing(store: Store, lease: Lease) -> None:
    seen = store.beats()["job-1"]
    store.beat({lease.token: "job-1"}, LEASE_SECONDS)
    before = dump(store)
    assert store.reap("job-1", seen, 2) is None
    assert dump(store) == before


def test_steps_are_shown_and_recorded(store: Store, lease: Lease) -> None:
    store.set_step(lease, Step.CLONING)
    store.set_step(lease, Step.AGENT)
    assert store.job("job-1").step is Step.AGENT
    assert [(event.move, event.attempt, event.detail) for event in store.events("job-1")][1:] == [
        ("claim", 1, "w1"),
        ("step", 1, "cloning"),
        ("step", 1, "agent"),
    ]


@pytest.mark.parametrize("how", ["finish", "requeue"])
def test_steps_that_were_not_told_come_before_the_end(store: Store, lease: Lease, how: str) -> None:
    store.set_step(lease, Step.CLONING)
    steps = (Step.CLONING, Step.AGENT, Step.COLLECTING)
    for _ in range(2):  # the reply to the first was lost
        if how == "finish":
            store.finish(lease, Outcome.SUCCEEDED, steps=steps)
        else:
            store.requeue(lease, message="", delay_seconds=0, counted=False, steps=steps)
    assert store.job("job-1").step is None
    moves = [(event.move, event.detail) for event in store.events("job-1")][2:-1]
    assert moves == [("step", "cloning"), ("step", "agent"), ("step", "collecting")]
    assert store.events("job-1")[-1].move == how


def test_events_are_bounded(store: Store) -> None:
    submit(store, make_job("job-1"))
    for _ in range(150):
        store.hold("job-1")
        store.release("job-1")
    events = store.events("job-1")
    assert len(events) == 200
    assert events[-1].move == "release"


def test_forget_leaves_what_is_not_finished(store: Store, lease: Lease) -> None:
    batch = submit(store, make_job("job-2"), make_job("job-3"), batch="b-two")
    store.cancel("job-2")
    assert store.forget(["job-1", "job-2", "job-3", "job-nowhere"]) == 1
    assert store.forget_empty_batches([batch.id, "b-nowhere"]) == 0
    store.cancel("job-3")
    store.forget(["job-3"])
    assert store.forget_empty_batches([batch.id]) == 1
    with pytest.raises(UnknownId):
        store.resolve_any("b-two")
    assert [key for key in dump(store) if b"job-2" in key or b"b-two" in key] == []
