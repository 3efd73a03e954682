"""Whether a command that says nothing still does something: a build or a test run may be quiet for long, and busy."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from tatin_jobs.errors import SandboxError

BUSY_SHARE = 0.1
"""Of one CPU, between two looks: what is below is a program that waits, with its timers (1 to 2 %, and several times
that in a machine that is emulated). A build takes a whole one, or a part of it on a host that is overloaded."""
LOOKS = 4
"""How often the CPU is looked at within an idle limit."""

CpuSeconds = Callable[[], Awaitable[float | None]]
"""What the sandbox has used so far; None: not known."""


class Busyness:
    """Looks at the CPU now and then. ``last_busy``: by the monotonic clock, the last look that found it busy."""

    def __init__(self, cpu_seconds: CpuSeconds | None) -> None:
        self._cpu_seconds = cpu_seconds
        self._used: float | None = None
        self._at = time.monotonic()
        self.last_busy = 0.0

    async def look(self) -> None:
        """Compare with the last look."""
        if self._cpu_seconds is None:
            return
        try:
            used = await self._cpu_seconds()
        except SandboxError:
            return  # its death is told elsewhere
        now = time.monotonic()
        if used is not None and self._used is not None and used - self._used > BUSY_SHARE * (now - self._at):
            self.last_busy = now
        self._used, self._at = used, now
