"""Attempts in the loop: stopped by token, counted by job, and let go of whatever happens in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import Lease
from tests.support.stores import make_job
from tests.support.wait import until
from worker import hand_over
from worker.context import Context
from worker.control import Control, Interrupted, Stop
from worker.hand_over import Attempts
from worker.loop import LoopThread


class Running:
    """Stands for the attempt: runs until it is stopped, or fails at once for jobs called ``job-fault``."""

    seen: dict[str, Stop]

    def __init__(self, context: Context, lease: Lease, control: Control, adopted: object) -> None:
        self._lease, self._control = lease, control

    async def run(self) -> None:
        if self._lease.job.id == "job-fault":
            raise RuntimeError("a fault")
        with suppress(Interrupted):
            await self._control.run(asyncio.Event().wait())
        assert self._control.interruption is not None
        Running.seen[self._lease.token] = self._control.interruption.stop


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def attempts(loop: LoopThread, ended: list[str], monkeypatch: pytest.MonkeyPatch) -> Attempts:
    Running.seen = {}
    monkeypatch.setattr(hand_over, "Attempt", Running)
    context = cast("Context", SimpleNamespace(home_id="0123abcd", home=Home(Path("/nonexistent"))))
    return Attempts(context, loop, on_end=lambda lease: ended.append(lease.token))


def lease(job_id: str, number: int) -> Lease:
    return Lease(job=make_job(job_id), token=f"s:{number}", attempt=number)


def names(attempts: Attempts, loop: LoopThread) -> set[str]:
    async def ask() -> set[str]:
        return attempts.sandboxes()

    return loop.submit(ask()).result(5)


def test_two_attempts_of_one_job_are_told_apart(attempts: Attempts, loop: LoopThread, ended: list[str]) -> None:
    """The old one is being cleared away while the new one runs: its end takes nothing from the new one."""
    first, second = (attempts.start(lease("job-abc", number)) for number in (1, 2))
    until(lambda: len(names(attempts, loop)) == 4, what="the names of two sandboxes each")
    assert attempts.running() == ("job-abc",)
    attempts.interrupt("s:1", Stop.LOST)
    first.result(5)
    assert (ended, Running.seen) == (["s:1"], {"s:1": Stop.LOST})
    assert attempts.running() == ("job-abc",)
    attempts.interrupt("s:2", Stop.CANCELLED)
    second.result(5)
    assert ended == ["s:1", "s:2"]
    assert attempts.running() == ()
    assert names(attempts, loop) == set()


def test_a_fault_in_an_attempt_lets_go_of_its_lease(
    attempts: Attempts, ended: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would be renewed for ever, and the job never end."""
    attempts.start(lease("job-fault", 1)).result(5)
    assert ended == ["s:1"]
    assert attempts.running() == ()
    assert "action=fault" in caplog.text


def test_a_fault_before_the_attempt_begins_lets_go_of_its_lease(
    attempts: Attempts, ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_name(*_: Any) -> str:
        raise ValueError("no name")

    monkeypatch.setattr(hand_over, "sandbox_name", no_name)
    attempts.start(lease("job-abc", 1)).result(5)
    assert ended == ["s:1"]


def test_a_hurry_reaches_attempts_that_begin_behind_it(attempts: Attempts, loop: LoopThread) -> None:
    """F03."""
    first = attempts.start(lease("job-abc", 1))
    until(attempts.running, what="an attempt")
    attempts.interrupt_all(Stop.SHUTDOWN)
    first.result(5)
    attempts.start(lease("job-def", 2)).result(5)
    assert Running.seen == {"s:1": Stop.SHUTDOWN, "s:2": Stop.SHUTDOWN}


def test_an_unknown_token_stops_nobody(attempts: Attempts) -> None:
    running = attempts.start(lease("job-abc", 1))
    attempts.interrupt("s:9", Stop.LOST)
    with pytest.raises(TimeoutError):
        running.result(0.05)
    attempts.interrupt("s:1", Stop.LOST)
    running.result(5)
