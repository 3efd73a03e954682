"""A model route in front of a scripted provider, both on real loopback connections in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from tatin_jobs.models import Budget, Model
from tatin_jobs.settings import ModelProvider
from worker.gateway import GatewayLimits, ModelGateway, Price

KEY = "sk-real-key-of-the-provider-0123456789"
TOKEN = "token-of-this-attempt"
MODEL = "small-model"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Provider:
    """A model provider that does what its handler says, and remembers what it was asked."""

    port: int
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """(method, request target, headers in lower case, body) of each request, as they came."""
    connections: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def provider(handler: Handler) -> AsyncIterator[Provider]:
    """Serve ``handler`` on loopback for every path."""
    told = Provider(0)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        told.requests.append((request.method, request.raw_path, headers, await request.content.read()))
        return await handler(request)

    server = web.Server(handle, handler_cancellation=True, access_log=None)

    def connect() -> asyncio.BaseProtocol:
        told.connections += 1
        return server()

    listener = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    told.port = listener.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        listener.close()
        await server.shutdown(timeout=0.1)


@dataclass
class Route:
    """An open model route, as the guest sees it at ``port``."""

    gateway: ModelGateway
    port: int
    client: aiohttp.ClientSession

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(
        self, path: str = "/v1/chat/completions", *, token: str = TOKEN, model: str = MODEL, **options: object
    ) -> aiohttp.client._RequestContextManager:
        """A call like an agent's; ``json`` or ``data`` in ``options`` replace its body."""
        if "data" not in options:
            options.setdefault("json", {"model": model, "messages": []})
        headers = {"Authorization": f"Bearer {token}", **(options.pop("headers", None) or {})}  # type: ignore[dict-item]
        return self.client.post(self.base_url + path, headers=headers, **options)  # type: ignore[arg-type]

    async def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes until the route closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


@asynccontextmanager
async def route(
    base_url: str,
    *,
    api: str = "openai",
    key_file: Path | None = None,
    key_env: str | None = None,
    limits: GatewayLimits | None = None,
    budget: Budget | None = None,
    price: Price | None = None,
) -> AsyncIterator[Route]:
    """A route to the provider at ``base_url``."""
    settings = ModelProvider.model_validate(
        {"base_url": base_url, "api": api, "key_file": key_file, "key_env": key_env}
    )
    gateway = ModelGateway(
        settings, Model(name=MODEL), TOKEN, limits=limits or GatewayLimits(), budget=budget, price=price
    )
    async with gateway, aiohttp.ClientSession() as client:
        listener = await asyncio.get_running_loop().create_server(gateway.protocol, "127.0.0.1", 0)
        try:
            yield Route(gateway, listener.sockets[0].getsockname()[1], client)
        finally:
            listener.close()


def key_file(folder: Path) -> Path:
    """A file with the provider's key, as ``key_file`` wants it."""
    path = folder / "key"
    path.touch(mode=0o600)
    path.write_text(KEY + "\n")
    return path


async def good(request: web.BaseRequest) -> web.StreamResponse:
    """A handler: a short good answer."""
    return web.json_response({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


async def stream(request: web.BaseRequest, *lines: bytes) -> web.StreamResponse:
    """Send these lines as a stream of events, and end it."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for line in lines:
        await response.write(line + b"\n\n")
    await response.write_eof()
    return response
