"""Between Huey's threads and the event loop: attempts started, stopped and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future

from tatin_jobs.models import Lease
from worker.context import Context
from worker.control import Control, Stop
from worker.loop import LoopThread
from worker.runner import Attempt
from worker.sandboxes.names import sandbox_name

log = logging.getLogger(__name__)


class Attempts:
    """The attempts that run on this worker. Thread-safe: everything is done in the loop, asked for from anywhere."""

    def __init__(self, context: Context, loop: LoopThread, on_end: Callable[[Lease], None]) -> None:
        self._context = context
        self._loop = loop
        self._on_end = on_end
        self._controls: dict[str, Control] = {}
        self._names: set[str] = set()
        self._stopping: Stop | None = None

    def start(self, lease: Lease) -> Future[None]:
        """Run one attempt; the future ends with it and carries no error."""
        return self._loop.submit(self._run(lease))

    def interrupt(self, job_id: str, stop: Stop) -> None:
        """Ask one attempt to stop; one that is not here is ignored."""
        self._call(lambda: self._interrupt(job_id, stop))

    def interrupt_all(self, stop: Stop) -> None:
        """Ask every attempt to stop, those that are just beginning too."""
        self._call(lambda: self._interrupt_all(stop))

    def running(self) -> tuple[str, ...]:
        """Ids of the jobs whose attempts run now."""
        return tuple(self._controls)

    def sandboxes(self) -> set[str]:
        """Names of the sandboxes that these attempts own; called in the loop."""
        return set(self._names)

    async def _run(self, lease: Lease) -> None:
        job, control = lease.job.id, Control()
        name = sandbox_name(self._context.home_id, job, lease.attempt)
        self._controls[job] = control
        self._names.add(name)
        if self._stopping:
            control.interrupt(self._stopping)
        log.info("action=begin job=%s attempt=%d", job, lease.attempt)
        try:
            await Attempt(self._context, lease, control).run()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("action=fault job=%s attempt=%d", job, lease.attempt)
        finally:
            del self._controls[job]
            self._names.discard(name)
            self._on_end(lease)
            log.info("action=end job=%s attempt=%d", job, lease.attempt)

    def _interrupt(self, job_id: str, stop: Stop) -> None:
        if control := self._controls.get(job_id):
            control.interrupt(stop)

    def _interrupt_all(self, stop: Stop) -> None:
        self._stopping = stop
        for control in self._controls.values():
            control.interrupt(stop)

    def _call(self, function: Callable[[], None]) -> None:
        self._loop.loop.call_soon_threadsafe(function)
