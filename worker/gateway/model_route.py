"""The model route: an HTTP reverse proxy on the host, by which one attempt's guest reaches its one model provider.

The guest speaks plain HTTP with a token that is worth nothing elsewhere; here the token becomes the provider's key.
What may cross is in ``rules``; requests are read whole, because what they ask for decides whether they cross, and
answers stream through as they come (``answers``). What is counted is in ``usage``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tatin_jobs.models import Budget, Model
from tatin_jobs.settings import ModelProvider
from worker.gateway import rules
from worker.gateway.answers import Answers, GuestGone, own_answer
from worker.gateway.limits import DEFAULT_LIMITS, GatewayLimits
from worker.gateway.prices import Price
from worker.gateway.upstream import Upstream
from worker.gateway.usage import CallFailed, RouteUsage
from worker.redaction import Redactor

log = logging.getLogger(__name__)


class _Refused(Exception):
    """A request that is not passed on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ModelGateway:
    """One attempt's route to ``provider``; open while its context is, or until ``close``.

    ``protocol`` is what ``Sandbox.serve`` calls for each connection, as ``loop.create_server`` would. ``usage`` is kept
    up to date while it runs and stays readable afterwards. Only ``model`` may be asked for, and only with ``token``.

    Raises:
        AttemptError: reason provider (when made), the provider's address cannot be used; reason auth (on entering),
            its key cannot be had.
    """

    def __init__(
        self,
        provider: ModelProvider,
        model: Model,
        token: str,
        *,
        price: Price | None = None,
        budget: Budget | None = None,
        limits: GatewayLimits = DEFAULT_LIMITS,
        redactor: Redactor | None = None,
    ) -> None:
        if not token:
            raise ValueError("a model route needs a token")
        self.usage = RouteUsage(price=price, budget=budget)
        self._api = provider.api
        self._model = model
        self._token = token
        self._limits = limits
        self._upstream = Upstream(provider, limits, redactor or Redactor())
        self._answers = Answers(self._upstream, self.usage, limits)
        self._server: web.Server | None = None
        self._slots = asyncio.Semaphore(limits.parallel_calls)
        self._held_bytes = 0
        """Bodies of requests that are in memory."""

    async def __aenter__(self) -> Self:
        await self._upstream.open()
        self._server = web.Server(
            self._handle,
            handler_cancellation=True,  # a guest that goes ends its call to the provider
            access_log=None,
            logger=_silent_logger(),
            keepalive_timeout=120,
            tcp_keepalive=False,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill the token, end every call and connection. Safe to call twice."""
        server, self._server = self._server, None
        if server:
            await server.shutdown(timeout=0.1)
        await self._upstream.close()

    def protocol(self) -> asyncio.BaseProtocol:
        """A protocol for one new connection of the guest."""
        if self._server is None or len(self._server.connections) >= self._limits.connections:
            return _Refuse()
        return self._server()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except _Refused as refused:
            self.usage.refused += 1
            return own_answer(refused.status, refused.message)
        except CallFailed as failed:
            self.usage.failed(failed.kind, failed.message)
            self.usage.last_status = failed.status
            return own_answer(failed.status, failed.message)
        except Exception:
            log.exception("action=model_call failed: a fault in the model route")
            return own_answer(500, "A fault in Tatin's model route; the worker's log has it.")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._server is None or not rules.bears(request.headers, self._token):
            raise _Refused(401, "This address wants the token of a running attempt.")
        target = request.raw_path
        if target == "/" and request.method in ("GET", "HEAD"):
            return web.json_response({"service": "tatin model route"})
        allowed = rules.allowed_target(self._api, request.method, target)
        if allowed is None:
            listed = ", ".join(f"{method} {path}" for method, path in sorted(rules.PATHS[self._api]))
            raise _Refused(404, f"The model route passes on only: {listed}.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused(415, "Compressed requests are not passed on.")
        self.usage.last_activity = time.monotonic()
        async with self._slots:
            return await self._pass_on(request, allowed)

    async def _pass_on(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        body = bytearray()
        try:
            await self._read_body(request, body)
            if request.method == "POST" and (complaint := rules.body_complaint(bytes(body), self._model.name)):
                raise _Refused(400, complaint)
            return await self._call(request, target, rules.with_usage(target, bytes(body)))
        finally:
            self._held_bytes -= len(body)

    async def _read_body(self, request: web.BaseRequest, body: bytearray) -> None:
        try:
            async for piece in request.content.iter_any():
                body += piece
                self._held_bytes += len(piece)
                if self._held_bytes > self._limits.request_bytes:
                    raise _Refused(413, f"Requests may have {self._limits.request_bytes} bytes together.")
        except (aiohttp.ClientError, web.RequestPayloadError, OSError) as error:
            raise _Refused(400, "The request broke off.") from error

    async def _call(self, request: web.BaseRequest, target: str, body: bytes) -> web.StreamResponse:
        asks = rules.asks_model(request.method, request.path)
        if asks and (why := self.usage.spent()):
            self.usage.stop_for_budget(why)
            raise _Refused(403, f"{why} The job's `budget` allows no further call.")
        self.usage.began()
        self.usage.request_bytes += len(body)
        self.usage.last_activity = time.monotonic()
        try:
            with self.usage.asking() if asks else nullcontext():
                answer = await self._upstream.call(request.method, target, request.headers, body)
                try:
                    return await self._answers.pass_on(request, answer, len(body))
                finally:
                    answer.close()
        except GuestGone:
            self.usage.given_up()
            return web.Response()  # nobody is there to read it
        except asyncio.CancelledError:
            self.usage.given_up()
            raise
        finally:
            self.usage.ended()


class _Refuse(asyncio.Protocol):
    """Closes a connection as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _silent_logger() -> logging.Logger:
    """For the HTTP library, which logs a traceback for each malformed request: a guest could fill the worker's log."""
    logger = logging.Logger("guest")
    logger.addHandler(logging.NullHandler())
    return logger
