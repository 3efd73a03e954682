"""A TCP proxy between a host and its Redis that cuts, delays, refuses and swallows."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.ports import free_port


class Proxy:
    """Dials may be turned while it runs. Everything else of it lives in a thread with a loop of its own."""

    def __init__(self, port: int, seed: int = 0) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.delay_seconds = 0.0
        """Of each piece, in both directions; with as much again of jitter."""
        self.cut_replies = 0.0
        """Which share of the replies is lost with the connection: the command has run."""
        self.refusing = False
        self.swallowing = False
        """Connections stay open; nothing comes through in either direction."""
        self.lost = 0
        """How many replies were lost so far."""
        self._target = port
        self._random = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def refuse(self, on: bool) -> None:
        """Close what is open, and take nothing new."""
        self.refusing = on
        if on:
            asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # the server made one
        self._writers |= {writer, ours}
        self._serving.add(task)
        try:
            await asyncio.gather(self._pass(reader, ours, replies=False), self._pass(theirs, writer, replies=True))
        except asyncio.CancelledError:
            pass  # the proxy ends; asyncio's streams would report it as an error
        finally:
            for each in (writer, ours):  # which may have been opened after all others were closed
                each.transport.abort()
            self._writers -= {writer, ours}
            self._serving.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds * (1 + self._random.random()))
                if replies and self._random.random() < self.cut_replies:
                    self.lost += 1
                    break
                if self.swallowing:
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _close_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self) -> None:
        """Only what serves is cancelled: a connection that is just being taken would leave its socket open."""
        self.refusing = True
        self._server.close()
        await self._close_all()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._serving:
                task.cancel()
            await asyncio.wait(others, timeout=0.1)


@contextmanager
def proxy(port: int, seed: int = 0) -> Iterator[Proxy]:
    """A proxy before this port for as long as the context lasts."""
    made = Proxy(port, seed)
    made.start()
    try:
        yield made
    finally:
        made.stop()
