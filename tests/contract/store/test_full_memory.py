"""F27: a server whose memory limit is reached takes no new jobs, and lets what runs come to its end. fakeredis knows no
memory limit, so this is for the real one alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import BeatAnswer, Store, connect
from tests.support.stores import LEASE_SECONDS, OFFER, client_of, dump, make_job, submit

pytestmark = pytest.mark.needs("valkey")


@pytest.fixture
def store(real_socket: Path) -> Iterator[Store]:
    store = Store(connect(f"unix://{real_socket}"))
    client_of(store).flushall()
    store.prepare()
    yield store
    client_of(store).config_set("maxmemory", "0")
    store.close()


def test_a_full_store_refuses_new_jobs_and_lets_the_others_end(store: Store) -> None:
    """F27."""
    submit(store, *(make_job(f"job-{index}") for index in range(4)))
    first = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert first is not None
    client_of(store).config_set("maxmemory", "1")
    before = dump(store)
    with pytest.raises(StoreUnavailable, match="free memory"):
        submit(store, make_job("job-new"))
    assert dump(store) == before
    assert store.beat({first.token: "job-0"}, LEASE_SECONDS) == {first.token: BeatAnswer.HELD}
    second = store.claim("w1", OFFER, [], "n2", LEASE_SECONDS)
    assert second is not None
    assert store.requeue(second, message="", delay_seconds=0, counted=True) is JobState.QUEUED
    third = store.claim("w1", OFFER, [], "n3", LEASE_SECONDS)
    assert third is not None
    assert store.reap(third.job.id, store.beats()[third.job.id], 5) is JobState.QUEUED
    assert store.cancel("job-3").outcome is Outcome.CANCELLED
    assert store.finish(first, Outcome.SUCCEEDED) is Outcome.SUCCEEDED
    assert store.forget(["job-0"]) == 1
    assert store.misplaced() == []
