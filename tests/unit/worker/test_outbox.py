"""Steps and live log on their way to the store: in order, bounded, and never in an attempt's way."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.models import Lease
from tatin_jobs.states import Step
from tests.support.stores import LEASE_SECONDS, OFFER, FakeStore, fake_store, make_job, submit
from worker import outbox
from worker.outbox import MAX_WAITING_BYTES, Outbox


@pytest.fixture
def store() -> FakeStore:
    return fake_store()


@pytest.fixture
def lease(store: FakeStore) -> Lease:
    submit(store, make_job("job-1"))
    lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert lease is not None
    return lease


async def test_log_arrives_in_order_and_before_the_outbox_closes_with_the_steps_before_it(
    store: FakeStore, lease: Lease
) -> None:
    async with Outbox(store, lease) as box:
        box.post(("stdout", b"a"))
        box.post(Step.CLONING)
        box.post(("stderr", b"b"))
        box.post(("stdout", b"c"))
        box.post(Step.AGENT)
        box.post(("stdout", b"d"))
    assert [(chunk.stream, chunk.data) for chunk in store.read_log("job-1")] == [
        ("stdout", b"a"),
        ("stderr", b"b"),
        ("stdout", b"c"),
        ("stdout", b"d"),
    ]
    assert [event.detail for event in store.events("job-1") if event.move == "step"] == ["cloning", "agent"]


class Recorder(FakeStore):
    """A store that hangs until ``gate`` opens, fails when told so, and remembers what it was given."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.error: Exception | None = None
        self.got: list[Any] = []

    def write_log(self, lease: Lease, pieces: Any) -> None:
        self.gate.wait(10)
        if self.error:
            raise self.error
        self.got += pieces

    def set_step(self, lease: Lease, *steps: Step) -> None:
        self.gate.wait(10)
        self.got += steps


async def test_steps_alone_are_left_to_the_end_of_the_attempt(store: FakeStore, lease: Lease) -> None:
    async with Outbox(store, lease) as box:
        box.post(("stdout", b"a"))
        await asyncio.sleep(3 * outbox.FLUSH_SECONDS)
        box.post(Step.AGENT)
        box.post(Step.COLLECTING)
    assert box.left == (Step.AGENT, Step.COLLECTING)
    assert "step" not in [event.move for event in store.events("job-1")]


async def test_a_store_that_hangs_costs_the_oldest_log_but_no_step(lease: Lease) -> None:
    """A62: a MiB waits at most."""
    recorder = Recorder()
    async with Outbox(recorder, lease) as box:
        box.post(Step.CREATING)
        await asyncio.sleep(0)  # the sender takes the first item and hangs with it
        box.post(Step.AGENT)
        pieces = [("stdout", bytes([index % 251]) * 16_384) for index in range(200)]
        for _, data in pieces:
            box.post(("stdout", data))
            assert sum(len(item[1]) for item in box._waiting if not isinstance(item, Step)) <= MAX_WAITING_BYTES
        recorder.gate.set()
    logged = [item for item in recorder.got if not isinstance(item, Step)]
    assert [item for item in recorder.got if isinstance(item, Step)] == [Step.CREATING, Step.AGENT]
    assert logged
    assert logged == pieces[-len(logged) :]


@pytest.mark.parametrize("error", [StoreUnavailable("The store does not answer."), RuntimeError("a fault")])
async def test_a_call_that_fails_is_dropped_and_the_next_goes_on(lease: Lease, error: Exception) -> None:
    recorder = Recorder()
    recorder.gate.set()
    recorder.error = error
    async with Outbox(recorder, lease) as box:
        box.post(("stdout", b"lost"))
        await asyncio.sleep(3 * outbox.FLUSH_SECONDS)
        recorder.error = None
        box.post(("stdout", b"kept"))
    assert recorder.got == [("stdout", b"kept")]


async def test_an_attempt_that_lost_its_lease_writes_nothing_and_still_closes(store: FakeStore, lease: Lease) -> None:
    store.reap("job-1", store.beats()["job-1"], 5)
    async with Outbox(store, lease) as box:
        box.post(Step.AGENT)
        await asyncio.sleep(3 * outbox.FLUSH_SECONDS)
        box.post(("stdout", b"late"))
    assert store.read_log("job-1") == []
