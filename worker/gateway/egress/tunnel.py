"""Bytes in both directions until both ends are done, counted, and cut when nothing moves any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from worker.gateway.egress.evidence import Destination, Evidence
from worker.gateway.egress.http import PIECE
from worker.sandboxes.base import together

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Silence:
    """An ``asyncio.timeout`` that begins anew with every byte. What it raises is TimeoutError."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> Silence:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._timeout.__aexit__(kind, error, trace)

    def broken(self) -> None:
        """Something moved."""
        if not self._timeout.expired():  # it may be over, and this end not cancelled yet
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)


class Tunnel:
    """Carries one CONNECT."""

    def __init__(self, evidence: Evidence, destination: Destination, silence_seconds: float) -> None:
        self._evidence = evidence
        self._destination = destination
        self._silence = Silence(silence_seconds)

    async def run(self, guest: Ends, host: Ends, early: bytes) -> None:
        """Until both have ended. ``early``: what the guest sent before it was answered.

        Raises:
            UsedUp: the attempt's bytes are. OSError: an end broke off. TimeoutError: both were silent.
        """
        async with self._silence:
            if early:
                self._sent(len(early))
                host[1].write(early)
            await together(_pump(guest[0], host[1], self._sent), _pump(host[0], guest[1], self._received))

    def _sent(self, count: int) -> None:
        self._silence.broken()
        self._evidence.moved(self._destination, sent=count)

    def _received(self, count: int) -> None:
        self._silence.broken()
        self._evidence.moved(self._destination, received=count)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moved: Callable[[int], None]) -> None:
    while data := await reader.read(PIECE):
        moved(len(data))
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
