"""A program in a bwrap guest, seen from the worker: the pipes that it was started with, and its warden's answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Literal

from worker.sandboxes.base import GuestProcess

Answer = asyncio.Future[tuple[int, list[int]]]
"""Its status, and the descriptors that came along."""
READS_AT_ONCE = 8
"""After so many everybody else in the loop has a turn, for a program may print without end."""


class BwrapProcess(GuestProcess):
    """A program in the guest, or what its warden prints; ``_pipes``: our ends of those that it has, which do not block.
    ``tell`` sends the warden what has no answer.

    They are read and written here, without asyncio's transports: most programs are given nothing and print little.
    """

    number: int
    answer: Answer

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._pipes: dict[str, int] = {}
        self._reads = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._loop = asyncio.get_running_loop()

    def open(self, stream: str) -> int:
        """Make a pipe; returns the program's end. Raises OSError."""
        read, write = os.pipe()
        ours, theirs = (write, read) if stream == "stdin" else (read, write)
        os.set_blocking(ours, False)
        self._pipes[stream] = ours
        return theirs

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and (fd := self._pipes.get("stdin")) is not None:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                await self._ready(fd, self._loop.add_writer, self._loop.remove_writer)
            except BrokenPipeError:
                return

    async def close_stdin(self) -> None:
        self._close("stdin")

    async def read(self, stream: Literal["stdout", "stderr"], limit: int = 65_536) -> bytes:
        self._reads += 1
        if self._reads % READS_AT_ONCE == 0:
            await asyncio.sleep(0)
        while (fd := self._pipes.get(stream)) is not None:
            try:
                data = os.read(fd, limit)
            except BlockingIOError:
                await self._ready(fd, self._loop.add_reader, self._loop.remove_reader)
                continue
            if not data:
                self._close(stream)
            return data
        return b""

    async def _ready(self, fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
        """Return when the pipe can be read or written, or was closed here."""
        ready = self._waiting[fd] = self._loop.create_future()
        add(fd, _set, ready)
        try:
            await ready
        finally:
            if self._waiting.pop(fd, None):
                remove(fd)

    async def wait(self) -> int:
        return (await asyncio.shield(self.answer))[0]

    async def kill(self) -> None:
        self._tell({"op": "kill", "id": self.number})

    def close(self) -> None:
        """Let go of the pipes."""
        for stream in list(self._pipes):
            self._close(stream)

    def _close(self, stream: str) -> None:
        fd = self._pipes.pop(stream, None)
        if fd is None:
            return
        if ready := self._waiting.pop(fd, None):
            (self._loop.remove_writer if stream == "stdin" else self._loop.remove_reader)(fd)
            _set(ready)
        os.close(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
