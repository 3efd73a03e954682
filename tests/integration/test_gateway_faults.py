"""How each fault of a provider arrives at the guest, and what is counted of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tatin_jobs.states import Reason
from tests.support.model_route import KEY, good, key_file, provider, route, stream
from worker.gateway import GatewayLimits


async def abort(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def page(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="<html>Log in</html>", content_type="text/html")


async def nothing(request: web.BaseRequest) -> web.StreamResponse:
    return await stream(request)


async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "http://other.example/v1/x?key=1"})


async def silent(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def status(number: int) -> object:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        body = {"error": {"message": f"no: {KEY} is wrong"}}
        return web.json_response(body, status=number, headers={"Retry-After": "7", "Set-Cookie": "a=b"})

    return answer


@pytest.mark.parametrize(
    ("answer", "kind", "seen_status", "reason"),
    [
        pytest.param(abort, "unreachable", 502, Reason.PROVIDER, id="connection-reset"),
        pytest.param(page, "html", 502, Reason.PROVIDER, id="web-page"),
        pytest.param(nothing, "empty", 502, Reason.PROVIDER, id="empty-stream"),
        pytest.param(elsewhere, "redirect", 502, Reason.PROVIDER, id="redirect"),
        pytest.param(silent, "timeout", 504, Reason.PROVIDER, id="headers-never-come"),
        pytest.param(status(400), "400", 400, Reason.AGENT, id="400"),
        pytest.param(status(401), "401", 401, Reason.AUTH, id="401"),
        pytest.param(status(429), "429", 429, Reason.QUOTA, id="429"),
        pytest.param(status(529), "529", 529, Reason.PROVIDER, id="529"),
    ],
)
async def test_fault_before_the_first_byte_is_an_error_that_agents_know(
    answer: object, kind: str, seen_status: int, reason: Reason, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    limits = GatewayLimits(silence_seconds=0.3)
    async with provider(answer) as there, route(there.base_url, key_file=key_file(tmp_path), limits=limits) as here:  # type: ignore[arg-type]
        async with here.post() as got:
            assert got.status == seen_status
            text = await got.text()
            headers = dict(got.headers)
        usage = here.gateway.usage
    assert usage.errors == {kind: 1}
    assert usage.last_status == seen_status
    blamed = usage.blame()
    assert blamed is not None
    assert blamed[0] is reason
    assert len(there.requests) == 1, "neither redirects nor retries are the route's business"
    assert KEY not in text + str(headers) + str(usage) + caplog.text
    assert "Set-Cookie" not in headers
    if kind.isdigit():
        assert headers["Retry-After"] == "7"
        assert "***" in text


async def test_provider_that_does_not_listen_is_unreachable() -> None:
    async with provider(good) as there:
        address = there.base_url
    async with route(address) as here:
        async with here.post() as got:
            assert got.status == 502
            assert address in await got.text()
        assert here.gateway.usage.errors == {"unreachable": 1}


async def cut(request: web.BaseRequest) -> AsyncIterator[bytes]:
    yield b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n'
    assert request.transport
    request.transport.abort()


async def unfinished(request: web.BaseRequest) -> AsyncIterator[bytes]:
    yield b'data: {"choices":[{"delta":{"content":"Hel"},"finish_reason":null}]}\n\n'


async def endless(request: web.BaseRequest) -> AsyncIterator[bytes]:
    while True:
        yield b"data: " + b"x" * 65_536 + b"\n\n"


async def falls_silent(request: web.BaseRequest) -> AsyncIterator[bytes]:
    yield b"data: {}\n\n"
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("body", "kind"),
    [(cut, "cut"), (unfinished, "cut"), (endless, "too_large"), (falls_silent, "timeout")],
    ids=["connection-breaks", "ends-without-end-mark", "never-ends", "falls-silent"],
)
async def test_fault_inside_a_stream_breaks_the_guests_connection(body: object, kind: str) -> None:
    """Agents take a stream that ends well for a whole answer, so a broken one must not end well."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for piece in body(request):  # type: ignore[operator]
            await response.write(piece)
        return response

    limits = GatewayLimits(silence_seconds=0.5, response_bytes=2**20)
    async with provider(answer) as there, route(there.base_url, limits=limits) as here:
        with pytest.raises(aiohttp.ClientError):
            async with here.post() as got:
                await got.read()
        assert here.gateway.usage.errors == {kind: 1}
        assert here.gateway.usage.response_bytes < 2 * 2**20
        blamed = here.gateway.usage.blame()
    assert blamed is not None
    assert blamed[0] is Reason.PROVIDER


async def test_error_inside_a_stream_is_passed_on_and_counted() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await stream(request, b'data: {"error":{"message":"overloaded"}}')

    async with provider(answer) as there, route(there.base_url) as here:
        async with here.post() as got:
            assert b"overloaded" in await got.read()
        assert here.gateway.usage.errors == {"error": 1}


async def test_success_clears_the_blame_of_an_earlier_failure() -> None:
    answers = [status(500), good]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await answers.pop(0)(request)  # type: ignore[operator, no-any-return]

    async with provider(answer) as there, route(there.base_url) as here:
        for _ in range(2):
            async with here.post() as got:
                await got.read()
        assert here.gateway.usage.blame() is None
        assert here.gateway.usage.errors == {"500": 1}


@pytest.mark.parametrize(("status", "told"), [(401, "false"), (403, "false"), (429, None), (500, None)])
async def test_a_wrong_key_is_not_tried_again(status: int, told: str | None) -> None:
    """Claude Code would ask ten times, three minutes long (seen with 2.1.332)."""

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    async with provider(refuse) as there, route(there.base_url) as here, here.post() as got:
        assert got.status == status
        assert got.headers.get("X-Should-Retry") == told
