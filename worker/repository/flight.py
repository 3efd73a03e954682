"""One piece of work for all who ask for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs a piece of work once for everybody who asks while it runs; nothing is remembered afterwards."""

    def __init__(self) -> None:
        self._flights: dict[K, tuple[asyncio.Task[V], list[int]]] = {}

    async def do(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """The result (or error) of ``make``, shared. It is given up only when nobody waits for it any more."""
        if key not in self._flights:
            task = asyncio.ensure_future(_run(make))
            self._flights[key] = (task, [0])
            task.add_done_callback(lambda done: self._forget(key, done))
        task, waiting = self._flights[key]
        waiting[0] += 1
        try:
            return await asyncio.shield(task)
        finally:
            waiting[0] -= 1
            if waiting[0] == 0 and not task.done():
                self._forget(key, task)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        """Another may have been started under the same key meanwhile."""
        if key in self._flights and self._flights[key][0] is task:
            del self._flights[key]


async def _run(make: Callable[[], Awaitable[V]]) -> V:
    return await make()
