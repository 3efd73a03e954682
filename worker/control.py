"""What can stop an attempt from outside, and the one place where an attempt learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")


class Stop(StrEnum):
    """Why an attempt is stopped before it ended of itself, strongest last."""

    SHUTDOWN = "shutdown"
    """The worker ends: collect, hand the job back, destroy."""
    CUT_OFF = "cut_off"
    """The store has been out of reach for too long: collect, hand the job back, destroy."""
    DEADLINE = "deadline"
    """Its deadline came: collect, finish as timed out, destroy."""
    FULL = "full"
    """The sandbox used up its disk: collect, finish as failed, destroy."""
    CANCELLED = "cancelled"
    """A person asked: collect, finish as cancelled, destroy."""
    DIED = "died"
    """The sandbox died."""
    LOST = "lost"
    """A newer attempt holds the job: keep what there is as superseded, destroy, write nothing about it."""


_STRENGTH = {stop: rank for rank, stop in enumerate(Stop)}


@dataclass(frozen=True)
class Interruption:
    """A stop, and what was seen."""

    stop: Stop
    detail: str = ""


class Interrupted(Exception):
    """What was run was given up, for ``Control.interruption``."""


class Control:
    """The stop signal of one attempt; used in the event loop only. A stronger stop replaces a weaker one."""

    def __init__(self) -> None:
        self._running: asyncio.Task[Any] | None = None
        self._given_up = False
        self.interruption: Interruption | None = None
        self.draining = False
        """The worker has been asked to end. Where its whole machine is, the sandboxes are too, and die."""
        self.overruled: Stop | None = None
        """The store ended the job by this and not by how the attempt ended: a cancel or a deadline came first."""

    def interrupt(self, stop: Stop, detail: str = "") -> None:
        """Ask the attempt to stop; safe to call at any time and again."""
        if self.interruption is None or _STRENGTH[stop] > _STRENGTH[self.interruption.stop]:
            self.interruption = Interruption(stop, detail)
        if self._running is not None:
            self._give_up(self._running)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What it returns or raises, given up when somebody asks to stop, or has. Once an attempt.

        Raises:
            Interrupted: it was given up, and has ended by now.
        """
        task: asyncio.Task[T] = asyncio.create_task(work)
        self._running = task
        if self.interruption is not None:
            self._give_up(task)
        try:
            await asyncio.wait({task})
        finally:
            self._running = None
            task.cancel()
        if self._given_up:
            await asyncio.gather(task, return_exceptions=True)
            raise Interrupted
        return task.result()

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        """Once: it may have to await something to come to its end."""
        if not self._given_up and not task.done():
            self._given_up = True
            task.cancel()

    @property
    def lost(self) -> bool:
        return self.interruption is not None and self.interruption.stop is Stop.LOST
