"""The egress gateway of one attempt: an HTTP proxy on the host, which is all that its guest reaches of any network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tatin_jobs.netrules import IPNetwork
from worker.gateway.egress.connection import serve_guest
from worker.gateway.egress.denial import Denial
from worker.gateway.egress.evidence import Evidence
from worker.gateway.egress.limits import DEFAULT_LIMITS, EgressLimits
from worker.gateway.egress.policy import NOTHING, Policy

READ_LIMIT = 64 * 2**10

log = logging.getLogger(__name__)


class EgressGateway:
    """Lets through what ``policy`` says at the time; open while its context is, or until ``close``.

    ``protocol`` is what ``Sandbox.serve`` calls for each connection, as ``loop.create_server`` would. ``trusted``:
    networks that are reached although they are not public. ``on_denied`` is called at the first denial of each place
    and reason. ``evidence`` is kept up to date while it runs and stays readable afterwards.
    """

    def __init__(
        self,
        trusted: Sequence[IPNetwork] = (),
        on_denied: Callable[[Denial], None] = lambda denial: None,
        *,
        limits: EgressLimits = DEFAULT_LIMITS,
    ) -> None:
        self.trusted = tuple(trusted)
        self.limits = limits
        self.policy: Policy = NOTHING
        self.evidence = Evidence(limits, on_denied)
        self.lookups: ThreadPoolExecutor
        self._open = False
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._open = True
        self.lookups = ThreadPoolExecutor(self.limits.lookups, "tatin-lookup")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut every connection and take no more. Safe to call twice."""
        was_open, self._open = self._open, False
        await self._cut()
        if was_open:
            self.lookups.shutdown(wait=False, cancel_futures=True)

    async def enter(self, policy: Policy) -> None:
        """From now on this policy; what another one let through is cut."""
        if policy != self.policy:
            self.policy = policy
            await self._cut()

    def protocol(self) -> asyncio.BaseProtocol:
        """A protocol for one new connection of the guest."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(READ_LIMIT), self._begin)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open or len(self._connections) >= self.limits.connections:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve_guest(self, reader, writer)
            writer.close()
        except (OSError, TimeoutError):
            writer.transport.abort()  # the guest, or what it spoke to, is gone or silent
        except Exception:
            log.exception("action=egress failed: a fault in the gateway")
            writer.transport.abort()

    async def _cut(self) -> None:
        tasks = dict(self._connections)
        for task, writer in tasks.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
