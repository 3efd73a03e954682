"""Run one command of an attempt (setup, agent, verify) detached in the guest, follow its output, and end it in time.

The launcher in the guest holds the time limit; the same limit, a little later, is held here, because nothing in a
guest can be trusted to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from worker.sandboxes.base import Run, RunChunk, RunStatus, Sandbox, StartSpec
from worker.signs_of_life import LOOKS, Busyness, CpuSeconds

OUTSIDE_GRACE_SECONDS = 15.0
"""How much later than the guest's own launcher the worker acts."""
LINGER_SECONDS = 15.0
"""How long a process may stay, without a sign of life, after its agent has said its last word."""
LAST_WORDS_SECONDS = 1.0
"""How long a command that is to be stopped may still say why it cannot go on."""


@dataclass(frozen=True)
class Followed:
    """How it ended. ``exit_status`` None: it was ended from outside. ``stalled``: it was quiet for too long.
    ``stopped``: ``enough`` said so. ``lingered``: it had said its last word and stayed; then ``exit_status`` is 0, for
    the status is that of our own signal."""

    exit_status: int | None
    timed_out: bool
    stalled: bool
    seconds: float
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    cut: bool = False
    stopped: bool = False
    lingered: bool = False


class _Lingers(Exception):
    """The command has done what it was to do, and does not end."""


class _Enough(Exception):
    """The command is to be stopped for what it did."""


class _Stalled(Exception):
    """The command was quiet for longer than its idle limit."""


async def run_followed(
    sandbox: Sandbox,
    spec: StartSpec,
    on_output: Callable[[RunChunk], None],
    *,
    idle_seconds: float | None = None,
    other_activity: Callable[[], float] = lambda: 0.0,
    enough: asyncio.Event | None = None,
    finished: Callable[[], bool] | None = None,
) -> Followed:
    """Start it and follow it to its end, as ``follow_run``."""
    started = time.monotonic()
    run = await sandbox.start(spec)
    return await follow_run(
        run,
        spec,
        on_output,
        started=started,
        idle_seconds=idle_seconds,
        other_activity=other_activity,
        enough=enough,
        cpu_seconds=cpu_of(sandbox),
        finished=finished,
    )


async def follow_run(
    run: Run,
    spec: StartSpec,
    on_output: Callable[[RunChunk], None],
    *,
    started: float,
    idle_seconds: float | None = None,
    other_activity: Callable[[], float] = lambda: 0.0,
    enough: asyncio.Event | None = None,
    cpu_seconds: CpuSeconds | None = None,
    finished: Callable[[], bool] | None = None,
) -> Followed:
    """Hand every piece of its output, from the first on, to ``on_output``; return when it has ended or was ended.

    ``started``: when, by the monotonic clock; by an earlier worker perhaps. ``other_activity`` gives the monotonic
    time of the last sign of life that is not output (model traffic); ``cpu_seconds`` what was computed. When ``enough``
    is set the command is stopped; when ``finished`` says so and it does not end, it is ended.

    Raises:
        SandboxError: the sandbox failed. Whatever ``on_output`` raises also ends the command and is passed on.
    """
    last_output = time.monotonic()

    async def follow() -> None:
        nonlocal last_output
        async for chunk in run.follow():
            last_output = time.monotonic()
            on_output(chunk)

    busyness = Busyness(cpu_seconds)

    async def watch_idle(limit: float) -> None:
        while True:
            quiet_since = max(last_output, other_activity(), busyness.last_busy)
            left = quiet_since + limit - time.monotonic()
            if left <= 0:
                raise _Stalled
            await asyncio.sleep(min(left, limit / LOOKS))
            await busyness.look()

    async def watch_finished(over: Callable[[], bool]) -> None:
        while True:
            left = max(last_output, other_activity()) + LINGER_SECONDS - time.monotonic() if over() else LINGER_SECONDS
            if left <= 0:
                raise _Lingers
            await asyncio.sleep(left)

    async def watch_enough(event: asyncio.Event) -> None:
        await event.wait()
        await asyncio.sleep(LAST_WORDS_SECONDS)
        raise _Enough

    stalled = late = stopped = lingered = False
    left = started + spec.timeout_seconds + spec.grace_seconds + OUTSIDE_GRACE_SECONDS - time.monotonic()
    try:
        async with asyncio.timeout(max(OUTSIDE_GRACE_SECONDS, left)):
            idle = watch_idle(idle_seconds) if idle_seconds else None
            ending = watch_finished(finished) if finished else None
            await _first(follow(), idle, ending, watch_enough(enough) if enough else None)
    except _Lingers:
        lingered = True
    except _Stalled:
        stalled = True
    except _Enough:
        stopped = True
    except TimeoutError:
        late = True
    if stalled or late or stopped or lingered:
        await run.stop(spec.grace_seconds)
    seconds = time.monotonic() - started
    followed = _followed(await run.status(), stalled=stalled, late=late, seconds=seconds)
    if lingered:
        return replace(followed, exit_status=0, timed_out=False, lingered=True)
    return replace(followed, exit_status=None, stopped=True) if stopped else followed


def cpu_of(sandbox: Sandbox) -> CpuSeconds:
    """What the sandbox has computed so far."""

    async def seconds() -> float | None:
        return (await sandbox.usage()).cpu_seconds

    return seconds


def _followed(status: RunStatus, *, stalled: bool, late: bool, seconds: float) -> Followed:
    return Followed(
        exit_status=None if stalled or late or status.timed_out else status.exit_status,
        timed_out=late or status.timed_out,
        stalled=stalled,
        seconds=seconds,
        stdout_bytes=status.stdout_bytes,
        stderr_bytes=status.stderr_bytes,
        cut=status.cut,
    )


async def _first(*coroutines: Coroutine[Any, Any, None] | None) -> None:
    """Wait for the first to end, end the others, and raise what it raised."""
    wanted = [coroutine for coroutine in coroutines if coroutine is not None]
    if len(wanted) == 1:
        await wanted[0]
        return
    tasks = [asyncio.create_task(coroutine) for coroutine in wanted]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
