"""How an answer of the provider is passed to the guest: at once, piece by piece, unchanged, and only when it is one.

Agents go round for ever on an empty answer or on a web page, and take a stream that just stops for a whole one. So such
an answer becomes an error that they know: a 502, or a connection that breaks in the middle.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime

import aiohttp
from aiohttp import web
from yarl import URL

from worker.gateway import rules
from worker.gateway.limits import GatewayLimits
from worker.gateway.quota import QuotaSeen, quota_in_answer, quota_in_stream
from worker.gateway.upstream import Upstream
from worker.gateway.usage import (
    BUDGET,
    CUT,
    EMPTY,
    HTML,
    REDIRECT,
    STREAM_ERROR,
    TIMEOUT,
    TOO_LARGE,
    CallFailed,
    RouteUsage,
)
from worker.gateway.usage_reader import AnswerReader


class GuestGone(Exception):
    """The guest closed its connection before it had all of its answer."""


class Answers:
    """Passes answers on and counts what went through."""

    def __init__(self, upstream: Upstream, usage: RouteUsage, limits: GatewayLimits) -> None:
        self._upstream = upstream
        self._usage = usage
        self._limits = limits

    async def pass_on(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, request_bytes: int
    ) -> web.StreamResponse:
        """The response to the guest, sent to its end. ``request_bytes``: of the body that was asked with.

        Raises:
            CallFailed: it was no good answer, and nothing of it has gone to the guest.
            GuestGone: the guest did not wait for its end.
        """
        self._usage.last_status = answer.status
        self._usage.last_activity = time.monotonic()
        if 300 <= answer.status < 400:
            raise self._redirect(answer)
        if answer.status >= 400:
            return await self._pass_error(answer)
        if answer.content_type == "text/html":
            raise CallFailed(HTML, f"{self._who} answered with a web page; is its base_url right?")
        pieces = self._pieces(answer)
        first = await anext(pieces, b"")
        if not first:
            raise CallFailed(EMPTY, f"{self._who} answered with nothing.")
        return await self._stream(request, answer, first, pieces, request_bytes)

    async def _stream(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        first: bytes,
        rest: AsyncIterator[bytes],
        request_bytes: int,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=rules.response_headers(answer.headers))
        reader = AnswerReader(answer.content_type)
        asks = rules.asks_model(request.method, request.path)
        try:
            with self._usage.reading(reader, request_bytes if asks else 0):
                await _to_guest(response.prepare(request))
                await self._pass_piece(response, reader, first)
                async for piece in rest:
                    await self._pass_piece(response, reader, piece)
                self._check_end(reader)
                await _to_guest(response.write_eof())
        except CallFailed as failed:
            # The status has gone out already, so the guest is told by a connection that breaks in the middle.
            self._usage.failed(failed.kind, failed.message)
            if request.transport:
                request.transport.abort()
            return response
        if reader.failed:
            self._failed_midway(reader.error.decode("utf-8", "replace"))
        else:
            self._usage.untold += asks and reader.tokens is None
            self._usage.went_well(answer=asks)
        return response

    async def _pass_piece(self, response: web.StreamResponse, reader: AnswerReader, piece: bytes) -> None:
        over, words = reader.finished, reader.pieces
        reader.feed(piece)
        # Of several choices (`n`) the first may end long before the others.
        goes_on = not reader.finished or (over and reader.pieces > words)
        if goes_on and (why := self._usage.spent(within_answer=True)):
            self._usage.stop_for_budget(why)
            raise CallFailed(BUDGET, why)
        await _to_guest(response.write(piece))

    def _failed_midway(self, event: str) -> None:
        self._usage.failed(STREAM_ERROR, f"{self._who} ended an answer with an error.")
        self._saw_quota(quota_in_stream(self._upstream.clean(event), datetime.now(UTC)))

    def _saw_quota(self, quota: QuotaSeen | None) -> None:
        if quota:
            self._usage.saw_quota(quota, datetime.now(UTC))

    def _check_end(self, reader: AnswerReader) -> None:
        reader.end()
        if not reader.finished:
            raise CallFailed(CUT, f"{self._who} broke off in the middle of an answer.")

    async def _pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The answer as it comes, counted, up to its limit."""
        size = 0
        try:
            async for piece in answer.content.iter_any():
                self._usage.last_activity = time.monotonic()
                self._usage.response_bytes += len(piece)
                size += len(piece)
                if size > self._limits.response_bytes:
                    raise CallFailed(TOO_LARGE, f"{self._who} gave an answer that is too long.")
                yield piece
        except TimeoutError as error:
            raise CallFailed(TIMEOUT, f"{self._who} fell silent in the middle of an answer.", 504) from error
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(CUT, f"{self._who} broke off in the middle of an answer.") from error

    async def _pass_error(self, answer: aiohttp.ClientResponse) -> web.Response:
        """An answer over 399, bounded, and without the key that it may quote."""
        body = bytearray()
        try:
            while len(body) < self._limits.error_bytes:
                if not (piece := await answer.content.read(self._limits.error_bytes - len(body))):
                    break
                body += piece
        except (aiohttp.ClientError, OSError):
            body.clear()  # the status says enough
        self._usage.response_bytes += len(body)
        self._usage.failed(str(answer.status), f"{self._who} answered {answer.status}.")
        text = self._upstream.clean(body.decode("utf-8", "replace"))
        self._saw_quota(quota_in_answer(answer.status, answer.headers, text, datetime.now(UTC)))
        headers = rules.response_headers(answer.headers)
        if answer.status in (
            401,
            403,
        ):  # Claude Code asks ten times with a wrong key, three minutes long, unless told so
            headers["X-Should-Retry"] = "false"
        return web.Response(status=answer.status, body=text.encode(), headers=headers)

    def _redirect(self, answer: aiohttp.ClientResponse) -> CallFailed:
        """Redirects are not followed: the key would go to whoever is named there."""
        try:
            target = str(URL(answer.headers.get("Location", "")).origin())
        except ValueError:
            target = "somewhere on the same server"
        return CallFailed(
            REDIRECT,
            f"{self._who} answered {answer.status}, a redirect to {self._upstream.clean(target)}, which is not"
            " followed. If that is right, make it the base_url in the worker's settings.",
        )

    @property
    def _who(self) -> str:
        return f"The model provider at {self._upstream.where}"


async def _to_guest(sending: Awaitable[object]) -> None:
    """Wait for a write to the guest. The same exceptions come from both sides, so they are told apart here."""
    try:
        await sending
    except (aiohttp.ClientError, OSError) as error:
        raise GuestGone from error


def own_answer(status: int, message: str) -> web.Response:
    """An answer of the route itself, in a shape that clients of both dialects show to people."""
    error: Mapping[str, str] = {"type": "tatin_model_route", "code": str(status), "message": message}
    return web.json_response({"type": "error", "error": error}, status=status)
