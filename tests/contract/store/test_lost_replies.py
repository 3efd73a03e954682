"""I11, F24: a request whose reply was lost is made again, and nothing happens twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.models import Batch, Lease
from tatin_jobs.states import JobState, Outcome, Step
from tatin_jobs.store import BeatAnswer, Store
from tatin_jobs.store.scripts import TRIES
from tests.support.stores import CREATED, LEASE_SECONDS, OFFER, client_of, dump, losing_replies, make_job, submit


@pytest.fixture
def lease(store: Store) -> Lease:
    submit(store, make_job("job-1"), make_job("job-2"))
    lease = store.claim("w1", OFFER, [], "n0", LEASE_SECONDS)
    assert lease is not None
    return lease


MOVES: dict[str, Callable[[Store, Lease], object]] = {
    "submit": lambda store, lease: submit(store, make_job("job-3"), batch="b-three"),
    "claim": lambda store, lease: store.claim("w1", OFFER, [], "n1", LEASE_SECONDS),
    "step": lambda store, lease: store.set_step(lease, Step.AGENT),
    "log": lambda store, lease: store.write_log(lease, [("stdout", b"one"), ("stderr", b"two")]),
    "finish": lambda store, lease: store.finish(lease, Outcome.SUCCEEDED),
    "requeue": lambda store, lease: store.requeue(lease, message="", delay_seconds=0, counted=True),
    "requeue with a delay": lambda store, lease: store.requeue(lease, message="", delay_seconds=60, counted=True),
    "cancel what waits": lambda store, lease: store.cancel("job-2"),
    "cancel what runs": lambda store, lease: store.cancel("job-1"),
    "hold": lambda store, lease: store.hold("job-2"),
    "release": lambda store, lease: store.release("job-2"),
    "reap": lambda store, lease: store.reap("job-1", store.beats()["job-1"], 2),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_move_whose_reply_is_lost_happens_once(store: Store, lease: Lease, name: str) -> None:
    if name == "release":
        store.hold("job-2")
    before = {job_id: len(store.events(job_id)) for job_id in ("job-1", "job-2", "job-3")}
    with losing_replies(store, 1):
        MOVES[name](store, lease)
    happened = [len(store.events(job_id)) - number for job_id, number in before.items()]
    assert sum(happened) == (0 if name == "log" else 1)
    assert store.misplaced() == []
    if name == "log":
        assert [chunk.data for chunk in store.read_log("job-1")] == [b"one", b"two"]


def test_a_claim_that_gave_up_is_answered_to_the_same_nonce_later(store: Store) -> None:
    submit(store, make_job("job-1"), make_job("job-2"))
    with losing_replies(store, TRIES), pytest.raises(StoreUnavailable):
        store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    again = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert again is not None
    assert (again.job.id, again.attempt) == ("job-1", 1)
    assert store.counts()[JobState.RUNNING] == 1


def test_the_nonce_of_an_attempt_that_is_over_gives_nothing(store: Store) -> None:
    """A41: a captured request that is sent again runs nothing again."""
    submit(store, make_job("job-1"))
    lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert lease is not None
    store.finish(lease, Outcome.SUCCEEDED)
    before = dump(store)
    assert store.claim("w1", OFFER, [], "n1", LEASE_SECONDS) is None
    assert dump(store) == before


def test_every_submit_and_claim_of_many_over_a_lossy_connection_is_known(store: Store) -> None:
    """F24: plain Huey made 442 jobs of 400, and 45 of 400 claims were known to nobody."""
    jobs = [make_job(f"job-{index}") for index in range(40)]
    roomy = OFFER.model_copy(update={"cpus": 999, "memory_mib": 99_999, "disk_mib": 99_999, "slots": 999})
    claimed = []
    for index, job in enumerate(jobs):
        with losing_replies(store, index % 3):
            submit(store, job)
    for index in range(len(jobs)):
        with losing_replies(store, index % 3):
            lease = store.claim("w1", roomy, [], f"n{index}", LEASE_SECONDS)
        assert lease is not None
        claimed.append(lease.job.id)
    assert claimed == [job.id for job in jobs]
    assert {job.attempt for job in store.jobs(claimed)} == {1}


def test_a_beat_behind_the_own_end_is_no_lost_lease(store: Store, lease: Lease) -> None:
    """The reply to a finish is lost, the next beat comes before it is asked again: the attempt is not superseded."""
    with losing_replies(store, TRIES), pytest.raises(StoreUnavailable):
        store.finish(lease, Outcome.SUCCEEDED)
    assert store.beat({lease.token: "job-1"}, LEASE_SECONDS) == {lease.token: BeatAnswer.OVER}
    assert store.finish(lease, Outcome.SUCCEEDED) is Outcome.SUCCEEDED


def test_a_server_that_forgot_the_scripts_is_told_again(store: Store, lease: Lease) -> None:
    """F31."""
    client_of(store).script_flush()
    store.set_step(lease, Step.AGENT)
    assert store.finish(lease, Outcome.SUCCEEDED) is Outcome.SUCCEEDED


def test_nothing_is_written_by_a_connection_that_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """F21: the error says what to look at; a submit that failed left nothing."""

    def refused(*args: object) -> None:
        raise redis.ConnectionError("refused")

    before = dump(store)
    monkeypatch.setattr(client_of(store), "evalsha", refused)
    with pytest.raises(StoreUnavailable, match="cannot be reached") as caught:
        store.submit(Batch(id="b-one", created_at=CREATED, jobs=("job-1",)), [make_job("job-1", batch="b-one")])
    assert caught.value.seen == "refused"
    assert dump(store) == before
