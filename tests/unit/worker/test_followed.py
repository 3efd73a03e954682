"""How a command is followed to its end, and ended where it does not end itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tatin_jobs.errors import SandboxError
from worker import followed as module
from worker.followed import Followed, follow_run
from worker.sandboxes.base import Run, RunChunk, RunStatus, StartSpec
from worker.signs_of_life import Busyness

SPEC = StartSpec(argv=("agent",), timeout_seconds=30, grace_seconds=0)


class Staying(Run):
    """A run that prints some words and then stays until it is stopped."""

    def __init__(self, *words: bytes) -> None:
        self._words = words
        self.stopped = asyncio.Event()

    async def follow(self, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncIterator[RunChunk]:
        for word in self._words:
            yield RunChunk("stdout", 0, word)
        await self.stopped.wait()

    async def status(self) -> RunStatus:
        return RunStatus(143, False, sum(map(len, self._words)), 0, False)

    async def stop(self, grace_seconds: float) -> None:
        self.stopped.set()


async def follow(run: Run, **more: object) -> Followed:
    return await follow_run(run, SPEC, lambda chunk: None, started=time.monotonic(), **more)  # type: ignore[arg-type]


async def test_process_that_stays_after_its_last_word_is_ended_and_its_word_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    run = Staying(b"done")
    ended = await follow(run, finished=lambda: True, idle_seconds=20)
    assert run.stopped.is_set()
    assert (ended.lingered, ended.exit_status, ended.stalled, ended.timed_out) == (True, 0, False, False)


async def test_process_that_is_not_finished_is_not_ended_for_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    ended = await follow(Staying(b"working"), finished=lambda: False, idle_seconds=0.2)
    assert (ended.lingered, ended.stalled) == (False, True)


async def test_a67_a_guest_whose_launcher_ends_nothing_is_ended_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A67: in a virtual machine the launcher is the guest's own user's and can be killed; the worker's clock is not."""
    monkeypatch.setattr(module, "OUTSIDE_GRACE_SECONDS", 0.05)
    run = Staying(b"working")
    started = time.monotonic() - SPEC.timeout_seconds
    ended = await follow_run(run, SPEC, lambda chunk: None, started=started)
    assert run.stopped.is_set()
    assert (ended.timed_out, ended.exit_status, ended.stalled) == (True, None, False)


async def test_quiet_and_idle_is_a_stall_and_quiet_but_busy_is_not() -> None:
    """F55: a build may say nothing for long."""
    used = 0.0
    looks = 0

    async def busy_at_first() -> float:
        nonlocal used, looks
        looks += 1
        used += 1.0 if looks < 12 else 0.0
        return used

    ended = await follow(Staying(), idle_seconds=0.2, cpu_seconds=busy_at_first)
    assert ended.stalled
    assert looks >= 12 + 2, "it was let go on while it was busy, and for the whole limit after that"


async def test_cpu_that_is_not_known_counts_for_nothing() -> None:
    async def unknown() -> None:
        return None

    async def failing() -> float:
        raise SandboxError("gone")

    for source in (unknown, failing, None):
        busyness = Busyness(source)
        await busyness.look()
        await busyness.look()
        assert busyness.last_busy == 0.0
