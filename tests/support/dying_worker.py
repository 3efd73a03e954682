"""A real worker that kills itself with SIGKILL when its attempt comes to a chosen point.

``python -m tests.support.dying_worker BATCH POINT``: a point is a step's name (killed as it begins), or ``claimed``
(the journal was not told), ``created`` (the sandbox is up, nobody was told), ``between`` (the first sandbox is gone,
that to verify in not begun), ``collected`` (the result is written, the store not told) or ``accepted`` (the store was
told, the sandbox not destroyed). ``never``: an ordinary worker.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from tatin_jobs.settings import load_settings
from worker import acceptance, sweep
from worker.attempt import closing, fresh
from worker.events import EventLog
from worker.journal import Journal
from worker.main import run_worker
from worker.sandboxes.bwrap.provider import BwrapProvider


def die() -> None:
    """As a power failure would, but for the disk's cache."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Make the worker die at ``point``."""
    tell, create = EventLog.ours, BwrapProvider.create

    def ours(self: EventLog, kind: str, **fields: Any) -> None:
        if fields.get("step") == point:
            die()
        tell(self, kind, **fields)

    async def created(self: BwrapProvider, spec: Any) -> Any:
        sandbox = await create(self, spec)
        die()
        return sandbox

    def claimed(*_: Any) -> None:
        die()

    async def between(*args: Any) -> bool:
        assert await sweep.destroy_sandbox(*args)
        die()
        return True

    async def collected(*args: Any) -> Any:
        die()
        return await acceptance.accept(*args)

    async def accepted(*args: Any) -> Any:
        die()
        return await sweep.destroy_sandbox(*args)

    EventLog.ours = ours  # type: ignore[method-assign]
    if point == "created":
        BwrapProvider.create = created  # type: ignore[method-assign]
    elif point == "claimed":
        Journal.write = claimed  # type: ignore[method-assign, assignment]
    elif point == "between":
        fresh.destroy_sandbox = between  # type: ignore[assignment, attr-defined]
    elif point == "collected":
        closing.accept = collected  # type: ignore[assignment, attr-defined]
    elif point == "accepted":
        closing.destroy_sandbox = accepted  # type: ignore[assignment, attr-defined]


if __name__ == "__main__":
    arm(sys.argv[2])
    sys.exit(run_worker(load_settings(os.environ), sys.argv[1]))
