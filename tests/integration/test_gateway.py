"""The model route over real connections: what passes and what is counted. (Faults: ``test_gateway_faults.py``.)"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from aiohttp import web

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import Model
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Reason
from tests.support.model_route import KEY, MODEL, TOKEN, good, key_file, provider, route, stream
from worker.gateway import GatewayLimits, ModelGateway, RouteUsage

END = b"data: [DONE]"


async def test_answer_streams_through_piece_by_piece() -> None:
    """Each piece reaches the guest before the provider sends the next one: neither side ever waits for the whole."""
    had = asyncio.Queue[bytes]()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(b"data: {%d}\n\n" % number)
            assert await had.get() == b"data: {%d}\n\n" % number
        await response.write(b"data: [DONE]\n\n")
        return response

    async with provider(answer) as there, route(there.base_url) as here, here.post() as got:
        assert got.content_type == "text/event-stream"
        pieces = []
        async with asyncio.timeout(10):
            async for piece in got.content.iter_any():
                pieces.append(piece)
                had.put_nowait(piece)
    assert pieces == [b"data: {0}\n\n", b"data: {1}\n\n", b"data: {2}\n\n", b"data: [DONE]\n\n"]


async def test_token_becomes_the_key_and_headers_are_on_a_list(tmp_path: Path) -> None:
    async with provider(good) as there, route(there.base_url, key_file=key_file(tmp_path)) as here:
        headers = {
            "Cookie": "a=b",
            "X-Forwarded-For": "10.0.0.1",
            "OpenAI-Organization": "org-else",
            "X-Api-Key": TOKEN,
        }
        async with here.post("/v1/chat/completions?beta=true", headers=headers) as got:
            assert got.status == 200
    ((method, target, sent, body),) = there.requests
    assert (method, target) == ("POST", "/v1/chat/completions?beta=true")
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["host"] == f"127.0.0.1:{there.port}"
    assert sent["accept-encoding"] == "identity"
    assert not sent.keys() & {"cookie", "x-forwarded-for", "openai-organization", "x-api-key"}
    assert TOKEN not in str(sent)
    assert body == b'{"model": "%s", "messages": []}' % MODEL.encode()


async def test_anthropic_provider_gets_its_key_in_its_own_header(tmp_path: Path) -> None:
    async with provider(good) as there, route(there.base_url, api="anthropic", key_file=key_file(tmp_path)) as here:
        headers = {"X-Api-Key": TOKEN, "anthropic-version": "2023-06-01"}
        body = {"model": MODEL, "messages": []}
        async with here.client.post(f"{here.base_url}/v1/messages", json=body, headers=headers) as got:
            assert got.status == 200
    sent = there.requests[0][2]
    assert sent["x-api-key"] == KEY
    assert sent["anthropic-version"] == "2023-06-01"
    assert "authorization" not in sent


async def test_provider_without_a_key_gets_none() -> None:
    async with provider(good) as there, route(there.base_url) as here, here.post() as got:
        assert got.status == 200
    assert not there.requests[0][2].keys() & {"authorization", "x-api-key"}


async def test_key_is_read_from_the_environment_and_its_absence_is_an_auth_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    async with provider(good) as there:
        async with route(there.base_url, key_env="SOME_KEY") as here, here.post() as got:
            assert got.status == 200
        monkeypatch.delenv("SOME_KEY")
        with pytest.raises(AttemptError, match="SOME_KEY") as failed:
            async with route(there.base_url, key_env="SOME_KEY"):
                pass
    assert there.requests[0][2]["authorization"] == f"Bearer {KEY}"
    assert failed.value.reason is Reason.AUTH


async def test_usage_is_summed_over_answers_of_both_kinds() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":20}}'
    answers = [lambda request: stream(request, b'data: {"choices":[{"finish_reason":"stop"}]}', usage, END), good]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await answers.pop(0)(request)

    async with provider(answer) as there, route(there.base_url) as here:
        for _ in range(2):
            async with here.post() as got:
                await got.read()
        assert (here.gateway.usage.tokens.input, here.gateway.usage.tokens.output) == (107, 23)
        assert here.gateway.usage.calls == 2
        assert here.gateway.usage.blame() is None


async def test_model_list_is_passed_on() -> None:
    async with provider(good) as there, route(there.base_url + "/api/v1") as here:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with here.client.get(f"{here.base_url}/v1/models", headers=headers) as got:
            assert got.status == 200
    assert there.requests[0][:2] == ("GET", "/api/v1/models")


async def test_bytes_of_an_answer_are_signs_of_life() -> None:
    go_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    async with provider(answer) as there, route(there.base_url) as here, here.post() as got:
        await got.content.readany()
        first = here.gateway.usage.last_activity
        assert first > 0
        go_on.set()
        await got.content.readany()
        assert here.gateway.usage.last_activity > first


async def test_calls_over_the_limit_wait_for_one_to_end() -> None:
    running, most, full, go_on = 0, 0, asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await go_on.wait()
        running -= 1
        return await good(request)

    async with provider(answer) as there, route(there.base_url, limits=GatewayLimits(parallel_calls=4)) as here:

        async def call() -> int:
            async with here.post() as got:
                return got.status

        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call()) for _ in range(40)]
            async with asyncio.timeout(10):
                await full.wait()
            go_on.set()
    assert [task.result() for task in calls] == [200] * 40
    assert most == 4


async def test_guest_that_leaves_ends_its_call_to_the_provider() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with provider(answer) as there, route(there.base_url) as here:
        call = asyncio.ensure_future(here.post())
        await began.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        async with asyncio.timeout(10):
            await ended.wait()
        usage = here.gateway.usage
        assert usage.blame() is None
        assert usage.blame(stalled=True) == (Reason.PROVIDER, usage.blame(stalled=True)[1])  # type: ignore[index]


def test_route_without_a_token_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="token"):
        ModelGateway(ModelProvider(base_url="http://127.0.0.1:1"), Model(name=MODEL), "")


async def test_closing_twice_is_fine() -> None:
    gateway = ModelGateway(ModelProvider(base_url="http://127.0.0.1:1"), Model(name=MODEL), TOKEN)
    async with gateway:
        await gateway.close()
    assert gateway.usage == RouteUsage()
