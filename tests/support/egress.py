"""An egress gateway, and hosts behind it, on real loopback connections in the test's own process.

Loopback is not public, so the gateways here trust it: what they refuse besides is what a test looks at. `localhost` is
the name that every machine can look up.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tatin_jobs.models import NetworkPolicy
from worker.gateway.egress import Denial, EgressGateway, EgressLimits, Policy, make_policy

LOOPBACK = "127.0.0.0/8"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@dataclass
class Host:
    """A server on loopback that remembers what it was sent."""

    name: str = "localhost"
    port: int = 0
    connections: int = 0
    got: bytearray = field(default_factory=bytearray)

    @property
    def where(self) -> str:
        return f"{self.name}:{self.port}"


@asynccontextmanager
async def host(
    answer: bytes = b"", *, until: bytes = b"\r\n\r\n", stay: bool = False, address: str = "127.0.0.1"
) -> AsyncIterator[Host]:
    """Answers each connection once it has sent ``until``, then closes; with ``stay`` it never closes. A guest's
    programs speak to `localhost` themselves and not through a proxy: theirs is at 127.0.0.2."""
    told = Host("localhost" if address == "127.0.0.1" else address)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.connections += 1
        seen = bytearray()
        while until not in seen and (data := await reader.read(65536)):
            seen += data
            told.got += data
        writer.write(answer)
        if stay:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, address, 0)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()


def http_answer(body: bytes = b"hello", status: str = "200 OK", more: str = "") -> bytes:
    """A whole answer of a plain HTTP server."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@dataclass
class Gateway:
    """An open gateway, as the guest sees it at ``port``."""

    gateway: EgressGateway
    port: int
    denials: list[Denial]

    async def open(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of the guest, which has sent this."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    async def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes until the gateway closes the connection."""
        reader, writer = await self.open(data)
        try:
            return await rest(reader)
        finally:
            writer.close()

    async def status(self, data: bytes) -> int:
        """The status of the answer to these bytes."""
        return int((await self.raw(data)).split(b" ", 2)[1])

    async def tunnel(self, where: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A tunnel that stands."""
        reader, writer = await self.open(connect(where))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        return reader, writer


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the other end closes, or breaks off, the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


def connect(where: str) -> bytes:
    """The request for a tunnel."""
    return f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()


def get(where: str, path: str = "/", *, host: str | None = None, more: str = "") -> bytes:
    """A plain request through a proxy, the last on its connection."""
    head = f"GET http://{where}{path} HTTP/1.1\r\nHost: {host or where}\r\n"
    return f"{head}Connection: close\r\n{more}\r\n".encode()


def allowing(*rules: str) -> Policy:
    """A policy that allows these."""
    return make_policy(NetworkPolicy(mode="allowlist", allow=rules), {}, "network")


@asynccontextmanager
async def gateway(
    policy: Policy, *, trusted: Sequence[str] = (LOOPBACK,), limits: EgressLimits | None = None
) -> AsyncIterator[Gateway]:
    """A gateway with this policy in force."""
    denials: list[Denial] = []
    networks = [ipaddress.ip_network(text) for text in trusted]
    async with EgressGateway(networks, denials.append, limits=limits or EgressLimits()) as made:
        await made.enter(policy)
        listener = await asyncio.get_running_loop().create_server(made.protocol, "127.0.0.1", 0)
        try:
            yield Gateway(made, listener.sockets[0].getsockname()[1], denials)
        finally:
            listener.close()
