"""Between Huey's threads and the event loop: attempts started, stopped and counted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from tatin_jobs.models import Lease
from worker.adoption import Adopted
from worker.context import Context
from worker.control import Control, Stop
from worker.loop import LoopThread
from worker.runner import Attempt
from worker.sandboxes.names import sandbox_name, verify_name
from worker.set_back import given_back

log = logging.getLogger(__name__)


class Attempts:
    """The attempts that run on this worker. Thread-safe: everything is done in the loop, asked for from anywhere."""

    def __init__(self, context: Context, loop: LoopThread, on_end: Callable[[Lease], None]) -> None:
        self._context = context
        self._loop = loop
        self._on_end = on_end
        self._running: dict[str, tuple[str, Control]] = {}  # token -> job, control: a job may be here twice
        self._names: set[str] = set()
        self._stopping: Stop | None = None
        self._draining = False

    def start(self, lease: Lease) -> Future[None]:
        """Run one attempt; the future ends with it and carries no error."""
        return self._loop.submit(self._run(lease))

    def go_on(self, adopted: Adopted) -> Future[None]:
        """As ``start``, with an attempt that an earlier worker began."""
        return self._loop.submit(self._run(adopted.lease, adopted))

    def interrupt(self, token: str, stop: Stop, detail: str = "") -> None:
        """Ask the attempt of this token to stop; one that is not here is ignored."""
        self._call(lambda: self._interrupt(token, stop, detail))

    def drain(self) -> None:
        """Let every attempt know that the worker is to end; none is stopped."""
        self._call(self._drain)

    def interrupt_all(self, stop: Stop) -> None:
        """Ask every attempt to stop, those that are just beginning too."""
        self._call(lambda: self._interrupt_all(stop))

    def running(self) -> tuple[str, ...]:
        """Ids of the jobs whose attempts run now."""
        return tuple(dict.fromkeys(job for job, _ in list(self._running.values())))

    def sandboxes(self) -> set[str]:
        """Names of the sandboxes that these attempts own; called in the loop."""
        return set(self._names)

    async def _run(self, lease: Lease, adopted: Adopted | None = None) -> None:
        job, control, names = lease.job.id, Control(), set[str]()
        self._running[lease.token] = (job, control)
        control.draining = self._draining
        if self._stopping:
            control.interrupt(self._stopping)
        log.info("action=begin job=%s attempt=%d", job, lease.attempt)
        try:
            if adopted is None and await given_back(self._context, lease):
                return
            name = sandbox_name(self._context.home_id, job, lease.attempt)
            names = {name, verify_name(name)}
            self._names |= names
            await Attempt(self._context, lease, control, adopted).run()
        except Exception:  # its lease is left to a reaper, which counts a death
            log.exception("action=fault job=%s attempt=%d", job, lease.attempt)
        finally:
            del self._running[lease.token]
            self._names -= names
            self._on_end(lease)
            log.info("action=end job=%s attempt=%d", job, lease.attempt)

    def _interrupt(self, token: str, stop: Stop, detail: str) -> None:
        if found := self._running.get(token):
            found[1].interrupt(stop, detail)

    def _drain(self) -> None:
        self._draining = True
        for _, control in self._running.values():
            control.draining = True

    def _interrupt_all(self, stop: Stop) -> None:
        self._stopping = stop
        for _, control in self._running.values():
            control.interrupt(stop)

    def _call(self, function: Callable[[], None]) -> None:
        self._loop.loop.call_soon_threadsafe(function)
