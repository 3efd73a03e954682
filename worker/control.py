"""What can stop an attempt from outside, and the one place where an attempt learns of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum


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


class Control:
    """The stop signal of one attempt; used in the event loop only. A stronger stop replaces a weaker one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.interruption: Interruption | None = None
        self.draining = False
        """The worker has been asked to end. Where its whole machine is, the sandboxes are too, and die."""
        self.overruled: Stop | None = None
        """The store ended the job by this and not by how the attempt ended: a cancel or a deadline came first."""

    def interrupt(self, stop: Stop, detail: str = "") -> None:
        """Ask the attempt to stop; safe to call at any time and again."""
        if self.interruption is None or _STRENGTH[stop] > _STRENGTH[self.interruption.stop]:
            self.interruption = Interruption(stop, detail)
        self._event.set()

    @property
    def lost(self) -> bool:
        return self.interruption is not None and self.interruption.stop is Stop.LOST

    async def wait(self) -> Interruption:
        """Return when somebody asked."""
        await self._event.wait()
        assert self.interruption is not None  # set before the event, always
        return self.interruption
