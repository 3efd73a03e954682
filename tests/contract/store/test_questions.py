"""What can be asked about jobs, batches and workers, and what can be followed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tatin_jobs import names
from tatin_jobs.errors import AmbiguousId, UnknownId
from tatin_jobs.models import Batch, Job, Lease, Repo, WorkerInfo
from tatin_jobs.states import HeldFor, JobState, Outcome
from tatin_jobs.store import Store, questions
from tatin_jobs.store.leasing import LOG_PIECE_BYTES
from tests.support.stores import CREATED, LEASE_SECONDS, OFFER, client_of, make_job, submit


def claim(store: Store, nonce: str = "n1") -> Lease:
    lease = store.claim("w1", OFFER, [], nonce, LEASE_SECONDS)
    assert lease is not None
    return lease


def test_a_record_comes_back_as_it_went_in(store: Store) -> None:
    job = make_job("job-1", message="Held until later.", state=JobState.HELD, retry_of="job-0", held_for=HeldFor.PERSON)
    submit(store, job, batch="b-batch")
    assert store.job("job-1") == job
    assert store.batch("b-batch") == Batch(id="b-batch", created_at=CREATED, jobs=("job-1",))


def test_an_id_is_found_by_any_unique_prefix(store: Store) -> None:
    submit(store, make_job("fix-aaa"), make_job("fix-aab"), make_job("other-1"), batch="b-xyz")
    assert store.resolve("o") == "other-1"
    assert store.resolve("fix-aaa") == "fix-aaa"
    with pytest.raises(AmbiguousId, match="fix-aaa, fix-aab"):
        store.resolve("fix")
    with pytest.raises(UnknownId):
        store.resolve("b-x")
    batch = store.resolve_any("b-x")
    assert isinstance(batch, Batch)


@pytest.mark.parametrize("name", ["b", "b-test"])
def test_a_job_whose_name_looks_like_a_batch_is_a_job(store: Store, name: str) -> None:
    job_id = names.job_id(name)
    submit(store, make_job(job_id), batch="b-2222222222")
    assert store.resolve(job_id) == job_id
    found = store.resolve_any(job_id[:-1])
    assert isinstance(found, Job)


@pytest.mark.parametrize("text", ["", "*", "[", "fix*", "../", "a\x00", "(", "+", "-", "\x7f", "ü", "x" * 200])
def test_a_prefix_that_no_id_has_is_refused(store: Store, text: str) -> None:
    """A44: what a person types is no pattern."""
    submit(store, make_job("fix-1"))
    with pytest.raises(UnknownId):
        store.resolve(text)


@pytest.mark.parametrize("many", [0, 1000], ids=["walking all", "by place"])
def test_lists_are_newest_first_by_state_and_time(store: Store, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "_MANY", many - 1)
    for index in range(60):
        submit(store, make_job(f"job-{index:02}", created_at=CREATED + timedelta(minutes=index)))
    store.hold("job-07")
    store.cancel("job-08")
    claim(store)
    assert [job.id for job in store.list_jobs(limit=2)] == ["job-59", "job-58"]
    assert [job.id for job in store.list_jobs(states=[JobState.HELD, JobState.FINISHED])] == ["job-08", "job-07"]
    assert [job.id for job in store.list_jobs(states=[JobState.RUNNING])] == ["job-00"]
    assert len(store.list_jobs(states=[JobState.QUEUED])) == 57
    since = CREATED + timedelta(minutes=58)
    assert [job.id for job in store.list_jobs(states=[JobState.QUEUED], since=since)] == ["job-59", "job-58"]
    assert store.counts() == {
        JobState.QUEUED: 57,
        JobState.HELD: 1,
        JobState.RUNNING: 1,
        JobState.FINISHED: 1,
    }


def test_the_place_in_line(store: Store) -> None:
    submit(store, make_job("job-1"), make_job("job-2"), make_job("job-3", priority=1))
    assert [store.place_in_line(name) for name in ("job-1", "job-2", "job-3", "job-none")] == [2, 3, 1, None]
    store.hold("job-1")
    assert store.place_in_line("job-1") is None


def test_batches_newest_first(store: Store) -> None:
    for index in range(3):
        made = Batch(id=f"b-{index}", created_at=CREATED + timedelta(minutes=index), jobs=(f"job-{index}",))
        store.submit(made, [make_job(f"job-{index}", batch=made.id)])
    assert [batch.id for batch in store.batches(2)] == ["b-2", "b-1"]
    assert store.batches(0 + 1)[0].id == "b-2"


def test_changes_are_followed_from_now_on_without_a_gap(store: Store) -> None:
    submit(store, make_job("job-1"), make_job("job-2"))
    cursor, moved = store.changes("$", 0)
    assert moved == []
    store.hold("job-1")
    store.hold("job-2")
    store.release("job-1")
    cursor, moved = store.changes(cursor, 0)
    assert moved == ["job-1", "job-2"]
    assert store.changes(cursor, 0) == (cursor, [])


def test_changes_go_on_behind_an_emptied_store_whose_clock_is_behind(store: Store) -> None:
    """F26, F07: an old cursor is no reason to be silent for hours."""
    submit(store, make_job("job-1"))
    cursor = f"{(int(datetime.now(UTC).timestamp()) + 3600) * 1000}-0"
    client_of(store).flushall()
    store.prepare()
    submit(store, make_job("job-2"))
    seen = []
    for _ in range(2):
        cursor, moved = store.changes(cursor, 0)
        seen += moved
    assert seen == ["job-2"]


def test_wake_tells_of_everything_that_becomes_claimable(store: Store) -> None:
    cursor = store.wake("0", 0)
    assert cursor == "0"
    for become in (
        lambda: submit(store, make_job("job-1")),
        lambda: (store.hold("job-1"), store.release("job-1")),
        lambda: store.requeue(claim(store), message="", delay_seconds=0, counted=False),
        lambda: (claim(store, "n2"), store.reap("job-1", store.beats()["job-1"], 5)),
    ):
        become()
        before, cursor = cursor, store.wake(cursor, 0)
        assert cursor != before
    assert store.wake(cursor, 0) == cursor
    assert client_of(store).xlen("tatin:wake") == 1


def test_the_live_log_comes_in_order_and_is_bounded(store: Store) -> None:
    """A62."""
    submit(store, make_job("job-1"))
    lease = claim(store)
    store.write_log(lease, [("stdout", b"a"), ("stdout", b"b"), ("stderr", b"\xff\x00"), ("tatin", b"note")])
    chunks = store.read_log("job-1")
    assert [(chunk.stream, chunk.data, chunk.attempt) for chunk in chunks] == [
        ("stdout", b"ab", 1),
        ("stderr", b"\xff\x00", 1),
        ("tatin", b"note", 1),
    ]
    assert store.read_log("job-1", chunks[1].cursor) == chunks[2:]
    big = bytes(LOG_PIECE_BYTES * 300)
    for _ in range(4):
        store.write_log(lease, [("stdout", big)])
    assert client_of(store).xlen("tatin:log:job-1") == 1000
    assert max(len(fields[b"d"]) for _, fields in client_of(store).xrange("tatin:log:job-1")) == LOG_PIECE_BYTES


def test_the_live_log_goes_a_day_after_the_end(store: Store) -> None:
    submit(store, make_job("job-1"))
    lease = claim(store)
    store.write_log(lease, [("stdout", b"a")])
    assert client_of(store).ttl("tatin:log:job-1") == -1
    store.finish(lease, Outcome.SUCCEEDED)
    assert 86_000 < client_of(store).ttl("tatin:log:job-1") <= 86_400


def test_workers_are_known_until_they_retire(store: Store) -> None:
    info = WorkerInfo(
        name="w1", host="here", pid=1, version="0", offer=OFFER, sandbox="fake", started_at=CREATED, problem=""
    )
    store.announce(info)
    store.drain("w1", True)
    (found,) = store.workers()
    assert found.draining
    assert found.seen_at is not None
    assert not store.is_silent(found)
    assert store.is_silent(info)
    late = found.model_copy(update={"seen_at": found.seen_at - timedelta(seconds=20)})
    assert store.is_silent(late)
    assert not store.is_silent(late.model_copy(update={"every_seconds": 10}))
    store.retire("w1")
    assert store.workers() == []
    store.announce(info)
    assert not store.workers()[0].draining


def test_a_ref_means_one_commit_for_a_whole_batch(store: Store) -> None:
    repo = Repo(url="https://example.invalid/app.git", ref="main")
    assert store.resolved_commit("b-one", repo) is None
    assert store.resolve_commit("b-one", repo, "a" * 40) == "a" * 40
    assert store.resolve_commit("b-one", repo, "b" * 40) == "a" * 40
    assert store.resolved_commit("b-one", repo) == "a" * 40
    assert store.resolved_commit("b-one", repo.model_copy(update={"ref": "other"})) is None
    assert store.resolved_commit("b-two", repo) is None


def test_one_worker_tells_people_once(store: Store) -> None:
    assert store.first_to_notify("b-one", "finished", "w1")
    assert not store.first_to_notify("b-one", "finished", "w2")
    assert store.first_to_notify("b-one", "finished", "w1"), "its first reply may have been lost"
    assert store.first_to_notify("b-one", "held", "w2")
    store.has_notified("b-one", "finished")
    assert not store.first_to_notify("b-one", "finished", "w1")
    assert store.first_to_notify("b-one", "held", "w2")


def test_a_sibling_is_the_same_store_over_its_own_connections(store: Store) -> None:
    submit(store, make_job("job-1"))
    sibling = store.sibling(timeout_seconds=1)
    assert type(sibling) is type(store)
    assert client_of(sibling).connection_pool is not client_of(store).connection_pool
    assert sibling.job("job-1") == store.job("job-1")
    sibling.close()
