"""What a damaged, emptied, restored or forged store does: no move by halves, no queue that stops for one bad record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tatin_jobs.errors import LeaseLost, StoreUnavailable, TatinError
from tatin_jobs.models import Lease, Model
from tatin_jobs.states import HeldFor, JobState, Outcome, Reason, Step
from tatin_jobs.store import BeatAnswer, Store
from tests.support.stores import LEASE_SECONDS, OFFER, client_of, dump, make_job, submit

LINE = "line:1;c1;m256;d100"
ACCOUNT = f"gate:a{hashlib.sha256(b'a').hexdigest()[:10]}"
ROUTE = f"gate:r{hashlib.sha256(b'p/m').hexdigest()[:10]}"


def claim(store: Store, nonce: str = "n1") -> Lease | None:
    return store.claim("w1", OFFER, [], nonce, LEASE_SECONDS)


def claimed(store: Store, nonce: str = "n1") -> Lease:
    lease = claim(store, nonce)
    assert lease is not None
    return lease


MOVES: dict[str, Callable[[Store, Lease], object]] = {
    "submit": lambda store, lease: submit(store, make_job("job-9"), make_job("job-8", state=JobState.HELD)),
    "claim": lambda store, lease: claim(store, "n2"),
    "beat": lambda store, lease: store.beat({lease.token: lease.job.id}, LEASE_SECONDS),
    "step": lambda store, lease: store.set_step(lease, Step.AGENT),
    "log": lambda store, lease: store.write_log(lease, [("stdout", b"a")]),
    "finish": lambda store, lease: store.finish(lease, Outcome.SUCCEEDED),
    "requeue": lambda store, lease: store.requeue(lease, message="", delay_seconds=0, counted=True),
    "reap": lambda store, lease: store.reap(lease.job.id, f"{lease.token}|0|60", 2),
    "cancel": lambda store, lease: store.cancel("job-2"),
    "hold": lambda store, lease: store.hold("job-2"),
    "release": lambda store, lease: store._scripts.call("release", "job-3", "a nonce"),  # without the look at it
    "settle": lambda store, lease: store.settle_needs(),
    "overdue": lambda store, lease: store.end_overdue(),
    "quota": lambda store, lease: store.meet_limit(lease, delay_seconds=60, message="full"),
    "route": lambda store, lease: store.tell_route(lease, worked=False),
    "gate": lambda store, lease: store.hold_queue(),
    "enroll": lambda store, lease: store.enroll("w1", "aaaaaaaa"),
    "release_due": lambda store, lease: store.release_due(),
    "forget": lambda store, lease: store.forget(["job-5"]),
    "repair": lambda store, lease: store.repair(),
}
KEYS = [
    "seq", "token", "job:job-2", "events:job-2", "events:job-1", "log:job-1", "ids", "all", "batches", "classes", LINE,
    "held", "leases:w1", "beats", "nonce:w1", "finished", "changes", "wake", "workers", "draining", "meta",
    "owners", "seen", "settle", "deadlines", "needs:job-6", "needed:job-5", "gates", "gate:queue", ACCOUNT, ROUTE,
]  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
def test_a_key_of_a_wrong_type_stops_a_move_before_it_wrote_anything(store: Store, move: str) -> None:
    """F30: Redis does not roll back."""
    for name in KEYS:
        client_of(store).flushall()
        store.prepare()
        past = datetime.now(UTC) - timedelta(hours=1)
        held = make_job("job-4", state=JobState.HELD, held_until=past)
        spec = held.spec.model_copy(update={"account": "a", "model": Model(name="m", provider="p"), "deadline": past})
        waiting = make_job("job-6", state=JobState.HELD, needs=("job-5",))
        first, others = make_job("job-1", spec=spec), (make_job("job-2"), make_job("job-3", state=JobState.HELD))
        submit(store, first, *others, held, make_job("job-5"), waiting)
        lease = claimed(store)
        store.cancel("job-5")
        client_of(store).delete(f"tatin:{name}")
        if name in ("seq", "token", "wake", "changes"):
            client_of(store).sadd(f"tatin:{name}", "planted")
        else:
            client_of(store).set(f"tatin:{name}", "planted")
        before = dump(store)
        try:
            MOVES[move](store, lease)
        except TatinError:
            assert dump(store) == before, f"{move} wrote a part with {name} planted"


def test_a_left_over_in_a_line_does_not_stop_the_queue(store: Store) -> None:
    """I1: what is in a line and not queued is dropped, not run."""
    submit(store, make_job("job-1"), make_job("job-2"))
    store.cancel("job-1")
    client_of(store).zadd(f"tatin:{LINE}", {"job-1": -5, "job-ghost": -4})
    assert claimed(store).job.id == "job-2"
    assert store.job("job-1").outcome is Outcome.CANCELLED
    assert client_of(store).zcard(f"tatin:{LINE}") == 0


def test_a_left_over_in_held_is_not_released_and_stops_no_other(store: Store) -> None:
    submit(
        store, make_job("job-1", state=JobState.HELD, held_until=datetime(2020, 1, 1, tzinfo=UTC)), make_job("job-2")
    )
    store.cancel("job-2")
    client_of(store).zadd("tatin:held", {"job-2": 1, "job-ghost": 2})
    assert store.release_due() == 1
    assert store.job("job-2").state is JobState.FINISHED
    assert client_of(store).zcard("tatin:held") == 0


def test_a_left_over_beat_is_dropped_by_the_reaper(store: Store) -> None:
    submit(store, make_job("job-1"))
    client_of(store).hset("tatin:beats", "job-1", "x:1|0|60")
    assert store.reap("job-1", "x:1|0|60", 2) is None
    assert store.beats() == {}
    assert store.misplaced() == []


@pytest.mark.parametrize(
    "field", [{"spec": "{"}, {"spec": '{"tool": "command"}'}, {"need": "[]"}, {"version": "x"}, {"created_at": ""}]
)
def test_a_record_that_cannot_be_read_ends_and_the_next_job_runs(store: Store, field: dict[str, str]) -> None:
    """A43: else every claim would take it and fail, for ever."""
    submit(store, make_job("job-bad"), make_job("job-good"))
    client_of(store).hset("tatin:job:job-bad", mapping=field)
    assert claim(store, "n1") is None
    assert claimed(store, "n2").job.id == "job-good"
    record = client_of(store).hgetall("tatin:job:job-bad")
    assert (record[b"state"], record[b"outcome"], record[b"reason"]) == (b"finished", b"failed", b"worker")
    assert [job.id for job in store.list_jobs()] == ["job-good"]
    with pytest.raises(TatinError, match="record of job 'job-bad' cannot be read"):
        store.job("job-bad")


def test_an_event_that_cannot_be_read_is_left_out(store: Store) -> None:
    submit(store, make_job("job-1"))
    client_of(store).rpush("tatin:events:job-1", "{", '{"at": "x"}', "[1]", '{"move": "x"}', '{"at": 1e308}')
    assert [event.move for event in store.events("job-1")] == ["submit"]


def test_an_emptied_store_gives_no_token_again(store: Store) -> None:
    """F26, I2: a worker that was running when it was emptied goes on with the same connection."""
    submit(store, make_job("job-1"))
    old = claimed(store)
    client_of(store).flushall()
    submit(store, make_job("job-1"))
    new = claimed(store, "n2")
    assert new.token != old.token
    assert store.beat({old.token: "job-1"}, LEASE_SECONDS) == {old.token: BeatAnswer.LOST}
    with pytest.raises(LeaseLost):
        store.finish(old, Outcome.SUCCEEDED)


def test_a_store_from_an_old_backup_gives_no_token_again(store: Store) -> None:
    """F26, I2: a worker tells the highest number that it has seen."""
    submit(store, make_job("job-1"))
    saved = {key: client_of(store).dump(key) for key in client_of(store).keys("*")}
    old = claimed(store)
    client_of(store).flushall()
    for key, value in saved.items():
        client_of(store).restore(key, 0, value)
    new = claimed(store, "n2")
    assert new.job.id == "job-1"
    assert new.token != old.token
    with pytest.raises(LeaseLost):
        store.finish(old, Outcome.SUCCEEDED)


def test_a_store_of_another_schema_is_refused(store: Store) -> None:
    client_of(store).hset("tatin:meta", "schema", "99")
    with pytest.raises(StoreUnavailable, match="another version of Tatin"):
        store.prepare()


DAMAGE: dict[str, tuple[JobState, Callable[[Store], object]]] = {
    "in no place": (JobState.QUEUED, lambda store: client_of(store).delete(f"tatin:{LINE}", "tatin:classes")),
    "in two places": (JobState.QUEUED, lambda store: client_of(store).zadd("tatin:held", {"job-1": 5})),
    "held in a line": (JobState.HELD, lambda store: client_of(store).zadd(f"tatin:{LINE}", {"job-1": 5})),
    "held nowhere": (JobState.HELD, lambda store: client_of(store).delete("tatin:held")),
    "finished in a line": (JobState.FINISHED, lambda store: client_of(store).zadd(f"tatin:{LINE}", {"job-1": 5})),
    "finished nowhere": (JobState.FINISHED, lambda store: client_of(store).delete("tatin:finished")),
    "running without a beat": (JobState.RUNNING, lambda store: client_of(store).delete("tatin:beats")),
    "running without a lease": (JobState.RUNNING, lambda store: client_of(store).delete("tatin:leases:w1")),
    "running nowhere": (
        JobState.RUNNING,
        lambda store: client_of(store).delete("tatin:leases:w1", "tatin:beats"),
    ),
    "leased by another": (
        JobState.RUNNING,
        lambda store: (
            client_of(store).hset("tatin:leases:w2", "job-1", "{}"),
            client_of(store).hset("tatin:workers", "w2", "{}"),
        ),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_repair_puts_every_job_where_its_record_says(store: Store, damage: str) -> None:
    """I1: doctor checks, and repairs from the records."""
    state, harm = DAMAGE[damage]
    submit(store, make_job("job-1", state=JobState.HELD if state is JobState.HELD else JobState.QUEUED))
    if state is JobState.RUNNING:
        claimed(store)
    elif state is JobState.FINISHED:
        store.cancel("job-1")
    submit(store, make_job("job-2", need=make_job().need.model_copy(update={"cpus": 2})))
    before = store.job("job-1")
    harm(store)
    assert "job-1" in store.misplaced()
    assert "job-1" in store.repair()
    assert store.misplaced() == []
    assert store.job("job-1") == before
    assert store.repair() == []
    if state is JobState.QUEUED:
        assert claimed(store).job.id == "job-1"
    elif state is JobState.RUNNING:
        assert store.reap("job-1", store.beats()["job-1"], 2) is JobState.QUEUED


@pytest.mark.parametrize("gone", ["deadlines", "needs:job-2", "needed:job-1"])
def test_repair_makes_the_indexes_beside_the_places_anew(store: Store, gone: str) -> None:
    """I1: else a deadline would never come, or a job wait for ever."""
    first = make_job("job-1")
    spec = first.spec.model_copy(update={"deadline": datetime.now(UTC) + timedelta(hours=1)})
    waiting = make_job("job-2", state=JobState.HELD, needs=("job-1",), spec=spec)
    submit(store, first, waiting)
    client_of(store).delete(f"tatin:{gone}")
    assert store.misplaced() == ["job-2"]
    assert store.repair() == ["job-2"]
    assert store.misplaced() == []
    client = client_of(store)
    assert client.zscore("tatin:deadlines", "job-2")
    assert client.zrange("tatin:needs:job-2", 0, -1) == [b"job-1"]
    assert client.zrange("tatin:needed:job-1", 0, -1) == [b"job-2"]
    assert store.job("job-2").held_for is HeldFor.NEEDS


def test_a_forged_finish_of_a_foreign_token_is_refused(store: Store) -> None:
    """A43."""
    submit(store, make_job("job-1"))
    lease = claimed(store)
    for token in ("", "*", "nil", f"{lease.token}0", lease.token.replace(":", "|")):
        with pytest.raises(LeaseLost):
            store.finish(lease.model_copy(update={"token": token}), Outcome.SUCCEEDED)
    assert store.finish(lease, Outcome.FAILED, Reason.AGENT) is Outcome.FAILED
