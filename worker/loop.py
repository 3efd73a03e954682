"""The one event loop, in one lasting thread: every attempt runs here and every child process is started here.

A child that is tied to its parent's death (PR_SET_PDEATHSIG, bwrap's --die-with-parent) dies with the *thread* that
started it. Were children started from Huey's worker threads, a thread that Huey replaces would take sandboxes along.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_STORE_THREADS = 32
"""Blocking calls (the store, fsync) run beside the loop; as many may hang at once before others wait."""


class LoopThread:
    """Starts the loop's thread; ``submit`` hands it a coroutine from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._executor = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="tatin-blocking")
        self.loop.set_default_executor(self._executor)
        self._thread = threading.Thread(target=self._run, name="tatin-loop", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def start(self) -> None:
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it in the loop; the future is of the calling thread's kind."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """End the loop; whatever still runs in it is cancelled and waited for."""

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.loop.shutdown_asyncgens()

        self.submit(end()).result(timeout=30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.loop.close()
