"""A76: an agent that spends without end is refused at the model route while it does so."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import pytest
from aiohttp import web

from tatin_jobs.models import Budget
from tests.support.model_route import MODEL, good, provider, route, stream
from tests.support.wait import until
from worker.gateway import Price
from worker.gateway.usage_reader import MAX_BODY_BYTES

END = b"data: [DONE]"
PRICE = Price(input=1_000_000, output=2_000_000)
"""A dollar a token in, two a token out."""
WORDS = b'data: {"choices":[{"delta":{"content":"word "}}]}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'


@pytest.mark.parametrize(
    ("budget", "calls", "words"),
    [
        (Budget(turns=2), 2, "The budget of 2 turns is spent."),
        (Budget(tokens=25), 3, "The budget of 25 tokens is spent: 30 were used."),
        (Budget(usd=14), 2, "The budget of $14 is spent: $26.0000 were used."),
        (Budget(usd=1000, tokens=1000, turns=1), 1, "The budget of 1 turns is spent."),
    ],
    ids=["turns", "tokens", "dollars", "the first of all"],
)
async def test_a76_the_call_after_the_budget_is_spent_does_not_reach_the_provider(
    budget: Budget, calls: int, words: str
) -> None:
    """A76: refused as it happens, and the agent is to be stopped."""
    async with provider(good) as there, route(there.base_url, budget=budget, price=PRICE) as here:
        for _ in range(calls):
            async with here.post() as got:
                assert got.status == 200
        assert not here.gateway.usage.enough.is_set()
        async with here.post() as got:
            assert got.status == 403
            assert words in (await got.json())["error"]["message"]
        assert here.gateway.usage.over_budget == words
        assert here.gateway.usage.enough.is_set()
    assert len(there.requests) == calls


async def test_a76_parallel_calls_do_not_get_round_the_number_of_turns() -> None:
    """A76: a call under way may become a turn, so it counts."""
    go_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        return await good(request)

    async with provider(answer) as there, route(there.base_url, budget=Budget(turns=3)) as here:

        async def call() -> int:
            async with here.post() as got:
                return got.status

        calls = [asyncio.create_task(call()) for _ in range(20)]
        await asyncio.to_thread(until, lambda: here.gateway.usage.refused >= 5 and len(there.requests) == 3)
        go_on.set()
        statuses = await asyncio.gather(*calls)
    assert sorted(statuses) == [200] * 3 + [403] * 17
    assert len(there.requests) == 3


async def test_a76_an_answer_without_end_is_cut_when_the_budget_is_spent() -> None:
    """A76: what streams is counted while it streams; the provider is told no more is wanted."""
    ended = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(WORDS + b"\n\n")
        finally:
            ended.set()

    async with provider(answer) as there, route(there.base_url, budget=Budget(tokens=500)) as here:
        async with here.post() as got:
            with contextlib.suppress(aiohttp.ClientError):
                async for _ in got.content.iter_any():
                    pass
        async with asyncio.timeout(10):
            await ended.wait()
        assert here.gateway.usage.over_budget is not None
        assert "The budget of 500 tokens is spent" in here.gateway.usage.over_budget
        assert here.gateway.usage.enough.is_set()
        async with here.post() as got:
            assert got.status == 403


async def test_a76_a_choice_that_ends_early_does_not_hide_the_others() -> None:
    """A76: `n` asks for many answers in one; the first that ends is not the end."""
    first = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(first + b"\n\n")
            while True:
                await response.write(WORDS + b"\n\n")
                await asyncio.sleep(0)
        return response

    async with provider(answer) as there, route(there.base_url, budget=Budget(tokens=40)) as here:
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(20), here.post(json={"model": MODEL, "stream": True, "n": 2}) as got:
                await got.read()
        assert here.gateway.usage.over_budget


async def test_a76_a_guest_cannot_choose_not_to_be_counted() -> None:
    """A76: Chat Completions tell the usage of a stream only when asked, so the route asks."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await stream(request, b'data: {"choices":[{"finish_reason":"stop"}]}', USAGE, END)

    async with provider(answer) as there, route(there.base_url) as here:
        body = {"messages": [{"content": '"stream_options"'}], "model": MODEL, "stream": True}
        async with here.post(json=body) as got:
            await got.read()
        assert here.gateway.usage.tokens.total == 10
    assert b'"stream_options":{"include_usage":true}' in there.requests[0][3]


async def test_a76_an_answer_that_tells_no_usage_counts_by_what_went_through() -> None:
    """A76: a server that tells nothing is no way round the budget; the result says how many calls told nothing."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await stream(request, *[WORDS] * 30, b'data: {"choices":[{"finish_reason":"stop"}]}', END)

    async with provider(answer) as there, route(there.base_url, budget=Budget(tokens=40)) as here:
        statuses = []
        for _ in range(2):
            async with here.post(json={"model": MODEL, "stream": True, "stream_options": {}}) as got:
                await got.read()
                statuses.append(got.status)
        assert statuses == [200, 403]
        assert here.gateway.usage.untold == len(there.requests) == 1
        assert not here.gateway.usage.tokens.told
        assert here.gateway.usage.cost_usd is None


async def test_a76_an_answer_too_long_to_be_looked_into_counts_by_its_bytes() -> None:
    """A76: a guest makes an answer longer than any usage in it is looked for (`logprobs` do), and is counted."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        text = '{"choices": ["' + "x" * MAX_BODY_BYTES + '"], "usage": {"completion_tokens": 9}}'
        return web.Response(text=text, content_type="application/json")

    async with provider(answer) as there, route(there.base_url, budget=Budget(tokens=MAX_BODY_BYTES // 8)) as here:
        with contextlib.suppress(aiohttp.ClientError):  # it is cut while it comes
            async with here.post() as got:
                await got.read()
        async with here.post() as got:
            assert got.status == 403
        assert here.gateway.usage.over_budget
    assert len(there.requests) == 1


async def test_a76_an_answer_that_is_no_stream_and_tells_no_usage_counts_by_its_bytes() -> None:
    """A76."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"choices": ["word " * 1000]})

    async with provider(answer) as there, route(there.base_url, budget=Budget(tokens=1000)) as here:
        for status in (200, 403):
            async with here.post() as got:
                assert got.status == status
    assert len(there.requests) == 1


async def test_a70_an_error_that_quotes_the_guest_is_no_limit_of_its_account() -> None:
    """A70: a limit holds every job of the account, so what a guest has a provider say is none. Providers quote names
    that they do not know in the middle of a sentence, or begin with them."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        name = next(name for name in json.loads(there.requests[-1][3]) if name != "model")
        message = f"Unknown parameter: '{name}'." if name == forged else f"{name}: Extra inputs are not permitted"
        return web.json_response({"error": {"type": "invalid_request_error", "message": message}}, status=400)

    forged = "insufficient_quota-try.again.in.20d"
    async with provider(answer) as there, route(there.base_url) as here:
        for name in (forged, "rate_limit", "You have reached your quota, try again in 20d"):
            async with here.post(json={"model": MODEL, name: 1}) as got:
                assert got.status == 400
        assert (here.gateway.usage.quota, here.gateway.usage.long_quota) == (None, None)
        assert not here.gateway.usage.enough.is_set()
    assert len(there.requests) == 2, "the last is refused here"
