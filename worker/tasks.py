"""The Huey task: a slot's thread hands its lease to the event loop and waits there until the attempt is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from huey.consumer import Consumer, Worker

from tatin_jobs.models import Lease
from tatin_jobs.queue import RUN_ATTEMPT, TatinHuey

HandOver = Callable[[Lease], "Future[None]"]

log = logging.getLogger(__name__)


def register(huey: TatinHuey, take: Callable[[str, str], Lease | None], hand_over: HandOver) -> None:
    """Make ``run_attempt`` known to this Huey. ``take`` gives the lease that the dequeue claimed."""

    @huey.task(name=RUN_ATTEMPT)  # type: ignore[untyped-decorator]
    def run_attempt(job_id: str, token: str) -> None:
        lease = take(job_id, token)
        if lease is None:
            log.warning("action=drop job=%s: no lease is held for this message", job_id)
            return
        hand_over(lease).result()


class _IdleScheduler:
    """Huey's scheduler moves delayed tasks; a job is never one (it would be lost with its consumer), so this waits."""

    process_name = "Scheduler"

    def __init__(self, huey: Any, stop_flag: Any, interval: int, periodic: bool) -> None:
        self._stop = stop_flag

    def initialize(self) -> None: ...

    def loop(self, now: Any = None) -> None:
        self._stop.wait(1)

    def shutdown(self) -> None: ...


class SlotConsumer(Consumer):  # type: ignore[misc]
    """Huey's consumer with one thread a slot, without its signal handlers: they end the process without running a
    single ``finally``, or re-execute it with children (F03, F04)."""

    worker_class = Worker
    scheduler_class = _IdleScheduler

    def _set_signal_handlers(self) -> None:
        """The worker's main thread has its own."""
