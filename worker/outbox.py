"""What one attempt tells the store as it goes: its steps and its live log, in order, beside the attempt.

A store that hangs or is away costs the live view, never the attempt: nothing here waits for it, and a call that fails
is dropped. What must arrive (the end of the attempt) does not go this way.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import groupby
from typing import Literal

from tatin_jobs.errors import LeaseLost, TatinError
from tatin_jobs.models import Lease
from tatin_jobs.states import Step
from tatin_jobs.store import Store

Stream = Literal["stdout", "stderr", "event", "tatin"]
Piece = tuple[Stream, bytes]

FLUSH_SECONDS = 0.02
"""Pieces that come within this time travel together; a line is seen by `logs -f` well within 100 ms."""
STEP_SECONDS = 0.25
"""A step alone waits so long for what comes with it: the steps of a short attempt follow each other in milliseconds."""
MAX_WAITING_BYTES = 2**20
"""Log that may wait for a store that is away; then the oldest is dropped."""
_PIECE_OVERHEAD_BYTES = 100

log = logging.getLogger(__name__)


class Outbox:
    """The ordered way to the store. Use as an async context manager; leaving it sends what still waits, but for steps
    alone, which travel with the end of the attempt (``left``)."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease
        self._waiting: list[Piece | Step] = []
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self._closing = False
        self.left: tuple[Step, ...] = ()
        """Once it is closed: the last steps, which the store was not told."""
        self._sender: asyncio.Task[None] | None = None
        """None until there is something to send: a short attempt may need none."""

    async def __aenter__(self) -> Outbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        if self._later:
            self._later.cancel()
        if self._sender:
            self._wake.set()
            await self._sender
        self.left = tuple(item for item in self._waiting if isinstance(item, Step))

    def post(self, item: Piece | Step) -> None:
        """Queue a piece of log or a step; returns at once."""
        self._waiting.append(item)
        self._waiting_bytes += _size(item)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._drop_half()
        if not isinstance(item, Step):
            self._send_soon()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(STEP_SECONDS, self._send_soon)

    def _send_soon(self) -> None:
        self._wake.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())

    def _drop_half(self) -> None:
        """Drop the oldest log; a step is never dropped, or the record would show a wrong one for hours."""
        kept: list[Piece | Step] = []
        for item in self._waiting:
            if self._waiting_bytes > MAX_WAITING_BYTES // 2 and not isinstance(item, Step):
                self._waiting_bytes -= _size(item)
            else:
                kept.append(item)
        self._waiting = kept

    async def _send(self) -> None:
        while True:
            if not self._closing:
                await self._wake.wait()
                self._wake.clear()
            if self._later:
                self._later.cancel()
                self._later = None
            if self._closing and all(isinstance(item, Step) for item in self._waiting):
                return
            items, self._waiting, self._waiting_bytes = self._waiting, [], 0
            try:
                await asyncio.to_thread(self._deliver, items)
            except LeaseLost:
                return  # the beats tell the attempt
            except TatinError as error:
                log.warning("job=%s not shown live: %s", self._lease.job.id, error.what)
                # a record that shows a wrong step would do so for hours
                self._waiting[:0] = [item for item in items if isinstance(item, Step)][-1:]
            except Exception:
                log.exception("job=%s not shown live", self._lease.job.id)
            if not self._closing:
                await asyncio.sleep(FLUSH_SECONDS)

    def _deliver(self, items: list[Piece | Step]) -> None:
        """Neighbours of a kind in one call."""
        for is_step, group in groupby(items, lambda item: isinstance(item, Step)):
            if is_step:
                self._store.set_step(self._lease, *(item for item in group if isinstance(item, Step)))
            else:
                self._store.write_log(self._lease, [item for item in group if not isinstance(item, Step)])


def _size(item: Piece | Step) -> int:
    return 0 if isinstance(item, Step) else len(item[1]) + _PIECE_OVERHEAD_BYTES
