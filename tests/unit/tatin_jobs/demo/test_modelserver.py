"""The scripted model server, asked over loopback as an agent asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tatin_jobs.demo.modelserver import ModelServer
from tatin_jobs.demo.scripts import HELLO

TOOLS = [{"type": "function", "function": {"name": "bash"}}]
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "(no output)"}


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(HELLO) as serving:
        yield serving


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def ask(model: str = "any", *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": "Do it."}, *messages]
    return {"json": {"model": model, "messages": asked, "tools": TOOLS, **more}}


def chunks(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_stream_brings_a_tool_call_in_pieces_and_then_the_answer(
    server: ModelServer, client: aiohttp.ClientSession
) -> None:
    path = server.base_url + "/v1/chat/completions"
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    async with client.post(path, **ask(**more)) as got:
        assert got.content_type == "text/event-stream"
        first = chunks(await got.read())
    calls = [call for chunk in first for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "bash"
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments)["command"] == "echo hello > hello.txt"
    assert first[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert first[-1]["usage"]["prompt_tokens"] > 0
    async with client.post(path, **ask("any", RESULT, **more)) as got:
        second = chunks(await got.read())
    text = "".join(choice["delta"].get("content", "") for chunk in second for choice in chunk["choices"])
    assert text == "All done: the file was written."
    assert second[-2]["choices"][0]["finish_reason"] == "stop"


async def test_whole_answer_and_title_and_model_list(server: ModelServer, client: aiohttp.ClientSession) -> None:
    path = server.base_url + "/v1/chat/completions"
    async with client.post(path, **ask("hello")) as got:
        answer = await got.json()
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "bash"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    async with client.post(path, json={"model": "hello", "messages": []}) as got:
        assert (await got.json())["choices"][0]["message"]["content"] == "A short title"
    async with client.get(server.base_url + "/v1/models") as got:
        assert [model["id"] for model in (await got.json())["data"]] == ["demo", "hello", "thinking"]
    assert [seen.path for seen in server.requests] == ["/v1/chat/completions"] * 2 + ["/v1/models"]


MESSAGES_TOOLS = [{"name": "Bash", "input_schema": {"properties": {"command": {}}}}]
RESPONSES_TOOLS = [{"type": "function", "name": "bash", "parameters": {"properties": {"command": {}}}}]


def data_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix(b"data: ")) for line in body.splitlines() if line.startswith(b"data: ")]


async def test_messages_api_brings_thought_text_and_a_call_in_the_agents_own_words(
    server: ModelServer, client: aiohttp.ClientSession
) -> None:
    path = server.base_url + "/v1/messages"
    body = {"model": "thinking", "messages": [{"role": "user", "content": "Do it."}], "tools": MESSAGES_TOOLS}
    async with client.post(path, json={**body, "stream": True}) as got:
        events = data_of(await got.read())
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "The user wants a file."
    (use,) = [event["content_block"] for event in events if event.get("content_block", {}).get("type") == "tool_use"]
    assert use["name"] == "Bash", "as the agent calls its tool"
    written = json.loads("".join(delta.get("partial_json", "") for delta in deltas))
    assert written == {"command": "echo hello > hello.txt; exit 3"}, "without an argument that it does not have"
    answered = [*body["messages"], {"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]
    async with client.post(path, json={**body, "messages": answered}) as got:
        whole = await got.json()
    assert whole["content"][-1]["text"].startswith("It is done")
    assert whole["stop_reason"] == "end_turn"


async def test_responses_api_brings_a_call_and_then_the_answer(
    server: ModelServer, client: aiohttp.ClientSession
) -> None:
    path = server.base_url + "/v1/responses"
    body: dict[str, Any] = {"model": "thinking", "input": [{"role": "user"}], "tools": RESPONSES_TOOLS}
    async with client.post(path, json={**body, "stream": True}) as got:
        events = data_of(await got.read())
    reasoning, call = events[-1]["response"]["output"]
    assert reasoning["summary"][0]["text"] == "The user wants a file."
    assert (call["name"], json.loads(call["arguments"])) == ("bash", {"command": "echo hello > hello.txt; exit 3"})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    given = [*body["input"], {"type": "function_call_output", "output": "x"}]
    async with client.post(path, json={**body, "input": given}) as got:
        assert (await got.json())["output"][-1]["content"][0]["text"].startswith("It is done")


@pytest.mark.parametrize(
    ("path", "fault", "seen"),
    [
        ("messages", "401", '"authentication_error"'),
        ("messages", "error", '"overloaded_error"'),
        ("messages", "length", '"max_tokens"'),
        ("responses", "401", '"invalid_api_key"'),
        ("responses", "error", '"type": "error"'),
        ("responses", "length", '"response.incomplete"'),
    ],
)
async def test_fault_speaks_the_api_that_was_asked(
    server: ModelServer, client: aiohttp.ClientSession, path: str, fault: str, seen: str
) -> None:
    body = {"model": f"fail-{fault}", "stream": True, "messages": [], "input": []}
    async with client.post(f"{server.base_url}/v1/{path}", json=body) as got:
        assert seen in await got.text()


async def test_model_that_is_named_after_a_script_follows_it(
    server: ModelServer, client: aiohttp.ClientSession
) -> None:
    async with client.post(server.base_url + "/v1/chat/completions", **ask("demo")) as got:
        assert (await got.json())["choices"][0]["message"]["content"].startswith("I will look")


async def test_only_the_right_key_is_let_in(client: aiohttp.ClientSession) -> None:
    async with ModelServer(HELLO, key="right") as server:
        for key, status in (("wrong", 401), ("right", 200)):
            headers = {"Authorization": f"Bearer {key}"}
            for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models")):
                async with client.request(method, server.base_url + path, headers=headers, **ask()) as got:
                    assert got.status == status


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"model": 1}', b'{"messages": 1, "model": "a"}', b"\xff"])
@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
async def test_body_that_is_no_request_is_answered_with_400(
    server: ModelServer, client: aiohttp.ClientSession, path: str, body: bytes
) -> None:
    async with client.post(f"{server.base_url}/v1/{path}", data=body) as got:
        assert got.status == 400


@pytest.mark.parametrize(
    ("model", "status", "seen"),
    [
        ("fail-401", 401, "invalid_api_key"),
        ("fail-429", 429, "rate_limit_exceeded"),
        ("fail-500", 500, "server_error"),
        ("fail-context", 400, "context_length_exceeded"),
        ("fail-html", 200, "<html>"),
        ("fail-empty", 200, ""),
        ("fail-bad-json", 200, "{this is no JSON"),
        ("fail-length", 200, '"finish_reason": "length"'),
        ("fail-no-text", 200, '"finish_reason": "stop"'),
        ("fail-unfinished", 200, '"finish_reason": null'),
    ],
)
async def test_fault_is_what_a_real_server_would_answer(
    server: ModelServer, client: aiohttp.ClientSession, model: str, status: int, seen: str
) -> None:
    async with client.post(server.base_url + "/v1/chat/completions", **ask(model, RESULT, stream=True)) as got:
        assert got.status == status
        assert ("Retry-After" in got.headers) == (status == 429)
        body = await got.text()
    assert seen in body
    assert bool(body) == bool(seen)
    assert ("[DONE]" in body) == (model in ("fail-bad-json", "fail-length", "fail-no-text"))


async def test_connection_that_is_cut_breaks(server: ModelServer, client: aiohttp.ClientSession) -> None:
    async with client.post(server.base_url + "/v1/chat/completions", **ask("fail-cut", RESULT, stream=True)) as got:
        with pytest.raises(aiohttp.ClientError):
            await got.read()


async def test_silent_server_is_silent_and_still_stops(client: aiohttp.ClientSession) -> None:
    async with ModelServer(HELLO) as server:
        path = server.base_url + "/v1/chat/completions"
        hanging = asyncio.ensure_future(client.post(path, **ask("fail-hang", stream=True)))
        async with client.post(path, **ask("fail-silent", stream=True)) as got:
            assert got.status == 200
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(got.content.readany(), 0.2)
            assert not hanging.done()
    with pytest.raises(aiohttp.ClientError):
        await hanging


async def test_fault_that_comes_once_is_over_with_the_second_call(
    server: ModelServer, client: aiohttp.ClientSession
) -> None:
    for status in (500, 200, 200):
        async with client.post(server.base_url + "/v1/chat/completions", **ask("fail-once-500")) as got:
            assert got.status == status
