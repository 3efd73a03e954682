"""The model route: an HTTP reverse proxy on the host, by which one attempt's guest reaches its one model provider.

The guest speaks plain HTTP with a token that is worth nothing elsewhere; here the token becomes the provider's key.
Bodies stream through in both directions as they come, and are not changed. What may cross is in ``rules``, what is
counted in ``usage``. A guest is hostile: every size, number and wait has a limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from tatin_jobs.errors import AttemptError, BadInput
from tatin_jobs.models import Model
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Reason
from worker.gateway import rules
from worker.gateway.providers import api_root
from worker.gateway.usage import UNREACHABLE, AnswerReader, RouteUsage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayLimits:
    """Limits of one route. Waits are long because a model on a CPU may take minutes to read a long prompt; the job's
    ``idle_timeout`` and ``timeout`` end an attempt earlier."""

    parallel_calls: int = 8
    """Further calls wait for one to end."""
    connections: int = 64
    """Further connections are closed at once."""
    request_bytes: int = 64 * 2**20
    response_bytes: int = 256 * 2**20
    error_bytes: int = 64 * 2**10
    """Of the body of an answer over 399."""
    connect_seconds: float = 15
    header_seconds: float = 900
    silence_seconds: float = 900
    """Between two pieces of an answer."""


class _TooLarge(Exception):
    """A body passed its limit."""


class _Unfinished(Exception):
    """A stream stopped, as if all were well, before its end mark. Agents take that for an answer, or never stop."""


class _GuestGone(Exception):
    """The guest closed its connection before it had all of its answer."""


class _Upload:
    """The body of one request on its way; tells afterwards whether it was the guest that broke it.

    (The client library gives every error in here the same wrapping as one of the provider's.)
    """

    def __init__(self, request: web.BaseRequest, limit_bytes: int, usage: RouteUsage) -> None:
        self._request = request
        self._limit_bytes = limit_bytes
        self._usage = usage
        self._size = 0
        self.too_large = False
        self.broken = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, counted, up to its limit."""
        try:
            async for piece in self._request.content.iter_any():
                self._usage.request_bytes += len(piece)
                self._size += len(piece)
                self._check_size()
                yield piece
        except Exception:
            self.broken = True
            raise

    def _check_size(self) -> None:
        if self._size > self._limit_bytes:
            self.too_large = True
            raise _TooLarge


class ModelGateway:
    """One attempt's route to ``provider``; open while its context is, or until ``close``.

    ``protocol`` is what ``Sandbox.serve`` calls for each connection, as ``loop.create_server`` would. ``usage`` is kept
    up to date while it runs and stays readable afterwards. The key is read when the route opens and is kept in memory
    only: never logged, and cut out of the bodies of errors.

    Raises (on entering):
        AttemptError: reason auth when the provider's key cannot be had, provider when its address cannot be used.
    """

    def __init__(
        self, provider: ModelProvider, model: Model, token: str, *, limits: GatewayLimits = GatewayLimits()
    ) -> None:
        if not token:
            raise ValueError("a model route needs a token")
        self._provider = provider
        self._model = model
        self._token = token
        self._limits = limits
        self._root = api_root(provider)
        self._key: str | None = None
        self._open = False
        self._server: web.Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(limits.parallel_calls)
        self.usage = RouteUsage()

    async def __aenter__(self) -> Self:
        try:
            self._key = await asyncio.to_thread(self._provider.key)
        except BadInput as error:
            raise AttemptError(error.what, seen=error.seen, try_=error.try_, reason=Reason.AUTH) from error
        self._session = aiohttp.ClientSession(
            trust_env=False,  # the host's proxy settings and ~/.netrc are not the job's
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=self._limits.parallel_calls),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._limits.connect_seconds, sock_read=self._limits.silence_seconds
            ),
        )
        self._server = web.Server(
            self._answer,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=120,
            tcp_keepalive=False,
            auto_decompress=False,
        )
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill the token, end every call and connection. Safe to call twice."""
        self._open = False
        server, self._server = self._server, None
        session, self._session = self._session, None
        if server:
            await server.shutdown(timeout=0.1)
        if session:
            await session.close()
        self._key = None

    def protocol(self) -> asyncio.BaseProtocol:
        """A protocol for one new connection of the guest."""
        if self._server is None or len(self._server.connections) >= self._limits.connections:
            return _Refuse()
        return self._server()

    # One call

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._open or not rules.bears(request.headers, self._token):
            return self._refuse(401, "This address wants the token of a running attempt.")
        target = request.raw_path
        if target == "/" and request.method in ("GET", "HEAD"):
            return web.json_response({"service": "tatin model route"})
        allowed = rules.allowed_path(self._provider.api, request.method, target)
        if allowed is None:
            return self._refuse(404, f"The model route passes on only: {_listed(self._provider.api)}.")
        if (request.content_length or 0) > self._limits.request_bytes:
            return self._refuse(413, f"A request may have {self._limits.request_bytes} bytes at most.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            return self._refuse(415, "Compressed requests are not passed on.")
        self.usage.last_activity = time.monotonic()
        async with self._slots:
            return await self._pass_on(request, *allowed)

    async def _pass_on(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        self.usage.calls += 1
        self.usage.last_activity = time.monotonic()
        url = URL(f"{self._root}{path}" + (f"?{query}" if query else ""), encoded=True)
        upload = _Upload(request, self._limits.request_bytes, self.usage)
        try:
            upstream = await self._call(request, url, upload)
        except TimeoutError:
            return self._failed("timeout", 504, f"The model provider at {self._where} did not answer in time.")
        except (aiohttp.ClientError, OSError, _TooLarge) as error:
            if upload.too_large:
                return self._refuse(413, f"A request may have {self._limits.request_bytes} bytes at most.")
            if upload.broken:
                return self._refuse(400, "The request broke off.")
            why = self._clean(_why(error))
            return self._failed(UNREACHABLE, 502, f"The model provider at {self._where} cannot be reached: {why}.")
        try:
            self.usage.last_status = upstream.status
            self.usage.last_activity = time.monotonic()
            if 300 <= upstream.status < 400:
                return self._redirected(upstream)
            if upstream.status >= 400:
                return await self._pass_error(upstream)
            return await self._pass_answer(request, upstream)
        finally:
            upstream.close()

    async def _call(self, request: web.BaseRequest, url: URL, upload: _Upload) -> aiohttp.ClientResponse:
        if self._session is None:
            raise aiohttp.ClientConnectionError("the route is closed")
        headers = rules.request_headers(request.headers, self._provider.api, self._key)
        if request.content_length is not None:
            # The same length again, so that a server which knows no chunked requests gets none.
            headers["Content-Length"] = str(request.content_length)
        async with asyncio.timeout(self._limits.header_seconds):
            return await self._session.request(
                request.method,
                url,
                headers=headers,
                data=upload.pieces() if request.can_read_body else None,
                allow_redirects=False,
            )

    async def _pass_answer(self, request: web.BaseRequest, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass on a good answer, from its first byte: agents go round for ever on an empty one or on a web page."""
        if upstream.content_type == "text/html":
            message = f"The model provider at {self._where} answered with a web page; is its base_url right?"
            return self._failed("html", 502, message)
        pieces = self._pieces(upstream)
        try:
            first = await anext(pieces, b"")
        except (aiohttp.ClientError, TimeoutError) as error:
            kind, why = _broken(error)
            return self._failed(kind, 502, f"An answer of the model provider at {self._where} {why}.")
        if not first:
            return self._failed("empty", 502, f"The model provider at {self._where} answered with nothing.")
        return await self._stream(request, upstream, first, pieces)

    async def _stream(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        first: bytes,
        rest: AsyncIterator[bytes],
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=upstream.status, headers=rules.response_headers(upstream.headers))
        await response.prepare(request)
        reader = AnswerReader(upstream.content_type)
        try:
            reader.feed(first)
            await _to_guest(response, first)
            async for piece in rest:
                reader.feed(piece)
                await _to_guest(response, piece)
            reader.end()
            _check_finished(reader)
            await _to_guest(response, None)
            self.usage.went_well()
        except _GuestGone:
            pass  # its own affair; leaving ends the call to the provider
        except (aiohttp.ClientError, TimeoutError, _TooLarge, _Unfinished) as error:
            # The status has gone out already, so the guest is told by a connection that breaks in the middle.
            kind, why = _broken(error)
            self._count(kind, f"An answer of the model provider at {self._where} {why}.")
            if request.transport:
                request.transport.abort()
        finally:
            self.usage.add_tokens(reader.input_tokens, reader.output_tokens)
        return response

    async def _pieces(self, upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The answer as it comes, counted, up to its limit."""
        size = 0
        async for piece in upstream.content.iter_any():
            self.usage.last_activity = time.monotonic()
            self.usage.response_bytes += len(piece)
            size += len(piece)
            if size > self._limits.response_bytes:
                raise _TooLarge
            yield piece

    async def _pass_error(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass on an answer over 399, bounded, and without the key that it may quote."""
        status = upstream.status
        try:
            body = await upstream.content.read(self._limits.error_bytes)
            while len(body) < self._limits.error_bytes:
                if not (piece := await upstream.content.read(self._limits.error_bytes - len(body))):
                    break
                body += piece
        except (aiohttp.ClientError, TimeoutError):
            body = b""
        self.usage.response_bytes += len(body)
        text = self._clean(body.decode("utf-8", "replace"))
        self._count(str(status), f"The model provider at {self._where} answered {status}.")
        return web.Response(status=status, body=text.encode(), headers=rules.response_headers(upstream.headers))

    def _redirected(self, upstream: aiohttp.ClientResponse) -> web.Response:
        """Redirects are not followed: the key would go to whoever is named there."""
        try:
            target = str(URL(upstream.headers.get("Location", "")).origin())
        except ValueError:
            target = "somewhere on the same server"
        message = (
            f"The model provider at {self._where} answered {upstream.status}, a redirect to {self._clean(target)},"
            " which is not followed. If that is right, make it the base_url in the worker's settings."
        )
        return self._failed("redirect", 502, message)

    # Answers of our own

    def _refuse(self, status: int, message: str) -> web.Response:
        self.usage.refused += 1
        return _own_answer(status, message)

    def _failed(self, kind: str, status: int, message: str) -> web.Response:
        self._count(kind, message)
        self.usage.last_status = status
        return _own_answer(status, message)

    def _count(self, kind: str, message: str) -> None:
        self.usage.failed(kind, message)
        log.info("action=model_call model=%s failed=%s", self._model.name, kind)

    @property
    def _where(self) -> str:
        return str(self._root.origin())

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Refuse(asyncio.Protocol):
    """Closes a connection as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _to_guest(response: web.StreamResponse, piece: bytes | None) -> None:
    """Write a piece, or with None the end. The same exceptions come from both sides, so they are told apart here."""
    try:
        await (response.write_eof() if piece is None else response.write(piece))
    except (aiohttp.ClientError, OSError) as error:
        raise _GuestGone from error


def _check_finished(reader: AnswerReader) -> None:
    if not reader.finished:
        raise _Unfinished


def _broken(error: Exception) -> tuple[str, str]:
    """(kind, the end of a sentence) for an answer that did not come whole."""
    if isinstance(error, TimeoutError):
        return "timeout", "fell silent"
    if isinstance(error, _TooLarge):
        return "too_large", "was too long"
    return "cut", "broke off"


def _own_answer(status: int, message: str) -> web.Response:
    """An answer of the route itself, in a shape that clients of both dialects show to people."""
    error: Mapping[str, str] = {"type": "tatin_model_route", "code": str(status), "message": message}
    return web.json_response({"type": "error", "error": error}, status=status)


def _listed(api: str) -> str:
    return ", ".join(f"{method} {path}" for method, path in sorted(rules.PATHS[api]))


def _why(error: BaseException) -> str:
    """The system's own words, without addresses and objects around them."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
