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

OUTSIDE_GRACE_SECONDS = 15.0
"""How much later than the guest's own launcher the worker acts."""
LAST_WORDS_SECONDS = 1.0
"""How long a command that is to be stopped may still say why it cannot go on."""


@dataclass(frozen=True)
class Followed:
    """How it ended. ``exit_status`` None: it was ended from outside. ``stalled``: it was quiet for too long.
    ``stopped``: ``enough`` said so."""

    exit_status: int | None
    timed_out: bool
    stalled: bool
    seconds: float
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    cut: bool = False
    stopped: bool = False


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
) -> Followed:
    """Hand every piece of its output, from the first on, to ``on_output``; return when it has ended or was ended.

    ``started``: when, by the monotonic clock; by an earlier worker perhaps. ``other_activity`` gives the monotonic
    time of the last sign of life that is not output (model traffic). When ``enough`` is set the command is stopped.

    Raises:
        SandboxError: the sandbox failed. Whatever ``on_output`` raises also ends the command and is passed on.
    """
    last_output = time.monotonic()

    async def follow() -> None:
        nonlocal last_output
        async for chunk in run.follow():
            last_output = time.monotonic()
            on_output(chunk)

    async def watch_idle(limit: float) -> None:
        while True:
            quiet_since = max(last_output, other_activity())
            left = quiet_since + limit - time.monotonic()
            if left <= 0:
                raise _Stalled
            await asyncio.sleep(left)

    async def watch_enough(event: asyncio.Event) -> None:
        await event.wait()
        await asyncio.sleep(LAST_WORDS_SECONDS)
        raise _Enough

    stalled = late = stopped = False
    left = started + spec.timeout_seconds + spec.grace_seconds + OUTSIDE_GRACE_SECONDS - time.monotonic()
    try:
        async with asyncio.timeout(max(OUTSIDE_GRACE_SECONDS, left)):
            idle = watch_idle(idle_seconds) if idle_seconds else None
            await _first(follow(), idle, watch_enough(enough) if enough else None)
    except _Stalled:
        stalled = True
    except _Enough:
        stopped = True
    except TimeoutError:
        late = True
    if stalled or late or stopped:
        await run.stop(spec.grace_seconds)
    seconds = time.monotonic() - started
    followed = _followed(await run.status(), stalled=stalled, late=late, seconds=seconds)
    return replace(followed, exit_status=None, stopped=True) if stopped else followed


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
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines if coroutine is not None]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
