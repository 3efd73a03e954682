"""A server that is none before somebody connects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from worker.sandboxes.bwrap.late_server import LateServer


class Greets(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


async def _greeting(listener: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_everybody_is_served_the_first_too(listener: socket.socket) -> None:
    server = LateServer(listener, Greets)
    assert await asyncio.gather(*(_greeting(listener) for _ in range(3))) == [b"hello"] * 3
    assert await _greeting(listener) == b"hello"
    server.close()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 50])
async def test_closed_at_any_time_it_accepts_nobody_more(listener: socket.socket, turns: int) -> None:
    server, address = LateServer(listener, Greets), listener.getsockname()
    with socket.create_connection(address):
        for _ in range(turns):
            await asyncio.sleep(0)
        server.close()
        server.close()
        await asyncio.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
