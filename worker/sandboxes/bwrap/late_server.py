"""A server that is none before somebody connects: most jobs try no network, and all have a port to be refused at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


class LateServer:
    """Serves ``listener``, which listens already, as ``loop.create_server`` would; whoever connects before waits."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._beginning: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._closed = False
        self._loop.add_reader(listener.fileno(), self._begin)

    def close(self) -> None:
        """Accept nothing more; connections that there are go on. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._beginning is None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        elif self._server is not None:
            self._server.close()

    def _begin(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._beginning = self._loop.create_task(self._serve())

    async def _serve(self) -> None:
        self._server = await self._loop.create_server(self._protocol, sock=self._listener)
        if self._closed:  # meanwhile
            self._server.close()
