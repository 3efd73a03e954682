"""Attacks on the model route: A72 (the key seen by others), A74 (what crosses it), A75 (whose token opens it)."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tatin_jobs.models import Budget, Model
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Outcome, Reason
from tests.attacks.conftest import ProviderOf
from tests.support.attempts import bench
from tests.support.model_route import KEY, MODEL, TOKEN, good, key_file, provider, route
from worker.agents import adapter
from worker.gateway import GatewayLimits, ModelGateway


async def test_a72_key_is_in_no_process_while_a_call_runs(tmp_path: Path) -> None:
    """A72: neither argv nor environment of any process on the host holds the key."""

    async def look(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        found = await asyncio.to_thread(_processes_that_show, KEY.encode())
        return web.json_response({"found": found})

    async with provider(look) as there, route(there.base_url, key_file=key_file(tmp_path)) as here:
        async with here.post() as got:
            assert (await got.json())["found"] == []


def _processes_that_show(secret: bytes) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                if secret in (process / name).read_bytes():
                    found.append(f"{process.name} {name}")
            except OSError:
                continue  # it ended, or is not ours to read
    return found


def test_a72_search_finds_a_secret_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A72: the search above can find something, or it would prove nothing."""
    shown = next(value for value in os.environb.values() if len(value) > 8)
    assert f"{os.getpid()} environ" in _processes_that_show(shown)


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "tök€n", "Bearer"])
async def test_a75_wrong_token_opens_nothing(token: str) -> None:
    """A75: no other token is taken, and nothing of the call reaches the provider."""
    async with provider(good) as there, route(there.base_url) as here:
        async with here.post(token=token) as got:
            assert got.status == 401
        async with here.client.get(here.base_url + "/") as got:
            assert got.status == 401
        assert here.gateway.usage.refused == 2
    assert there.requests == []


async def test_a75_token_opens_only_the_route_of_its_own_attempt() -> None:
    """A75: each route knows one token."""
    async with provider(good) as there, route(there.base_url) as mine:
        other = ModelGateway(ModelProvider(base_url=there.base_url), Model(name=MODEL), "token-of-another-attempt")
        async with other:
            listener = await asyncio.get_running_loop().create_server(other.protocol, "127.0.0.1", 0)
            address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/models"
            async with mine.client.get(address, headers={"Authorization": f"Bearer {TOKEN}"}) as got:
                assert got.status == 401
            listener.close()
    assert there.requests == []


async def test_a75_closed_route_cuts_calls_and_takes_no_more() -> None:
    """A75: at the end of the attempt a call under way breaks off at both ends, and old and new connections are shut."""
    began, left = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: {}\n\n")
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    async with provider(answer) as there, route(there.base_url) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)  # idle, with a right to come
        async with here.post() as got:
            await began.wait()
            await here.gateway.close()
            with pytest.raises(aiohttp.ClientError):
                await got.read()
        async with asyncio.timeout(10):
            await left.wait()
            writer.write(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            assert await _rest(reader) == b""
        writer.close()
        with pytest.raises(aiohttp.ClientError):
            await here.post()
    assert len(there.requests) == 1


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/files"),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/chat/completions"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/v1/./chat/completions"),
        ("POST", "/v1/chat/../files"),
        ("POST", "/v1/chat/completions/../../../admin"),
        ("POST", "/v1/chat/%63ompletions"),
        ("POST", "/v1/chat%2fcompletions"),
        ("POST", "/v1/chat/completions%2f..%2f..%2fadmin"),
        ("POST", "/V1/chat/completions"),
        ("POST", "/v1/chat/completions?a=%2e%2e%2f"),
        ("POST", "/v1/chat/completions#/../admin"),
        ("POST", "http://other.example/v1/chat/completions"),
        ("POST", "http://127.0.0.1:1/v1/chat/completions"),
        ("GET", "http://169.254.169.254/latest/meta-data"),
        ("CONNECT", "other.example:443"),
        ("OPTIONS", "*"),
    ],
)
async def test_a74_only_the_paths_on_the_list_cross(method: str, target: str) -> None:
    """A74: other paths, however they are written, and other hosts."""
    async with provider(good) as there, route(there.base_url) as here:
        body = json.dumps({"model": MODEL})
        got = await here.raw(
            f"{method} {target} HTTP/1.1\r\nHost: other.example\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        assert got.split(b" ", 2)[1] in (b"400", b"404")
    assert there.requests == []
    assert there.connections == 0


async def test_a74_host_header_chooses_no_host() -> None:
    """A74: the provider is asked as itself, whatever Host the guest writes."""
    async with provider(good) as there, route(there.base_url) as here:
        async with here.post(headers={"Host": "other.example", "X-Forwarded-Host": "other.example"}) as got:
            assert got.status == 200
    assert there.requests[0][2]["host"] == f"127.0.0.1:{there.port}"
    assert "other.example" not in str(there.requests)


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "big-model"}',
        '{"model": ["small-model"]}',
        '{"model": null}',
        "{}",
        "[]",
        '"small-model"',
        '{"model": "small-model", "model": "big-model"}',
        '{"model": "big-model", "model": "small-model"}',
        '{"model": "small-model", "Model": "big-model"}',
        '{"model": "small-model", "\\u006dodel": "big-model"}',
        '{"model": "small-model", "models": ["big-model"]}',
        '{"MODEL": "small-model"}',
        '{"nested": {"model": "small-model"}}',
        '{"model": "small-model"} {"model": "big-model"}',
        '{"model": "small-model"',
        "model=small-model",
        "",
        "[" * 100_000,
        '{"model": "small-model", "a": [' + "[]," * 2_000_001 + "[]]}",
    ],
    ids=lambda body: body[:50],
)
async def test_a74_a76_no_other_model_can_be_asked_for(body: str) -> None:
    """A74, A76: in no way of writing JSON, and the refusal names the attempt's model or what was wrong."""
    async with provider(good) as there, route(there.base_url) as here:
        async with here.post(data=io.BytesIO(body.encode()), headers={"Content-Type": "application/json"}) as got:
            assert got.status == 400
            message = (await got.json())["error"]["message"]
        assert MODEL in message or "body" in message
        assert here.gateway.usage.calls == 0
    assert there.requests == []


async def test_a74_body_in_another_encoding_is_refused() -> None:
    """A74: a server might read in it what we do not."""
    async with provider(good) as there, route(there.base_url) as here:
        async with here.post(data=json.dumps({"model": MODEL}).encode("utf-16")) as got:
            assert got.status == 400
        async with here.post(headers={"Content-Encoding": "gzip"}) as got:
            assert got.status == 415
    assert there.requests == []


async def test_a74_bodies_are_bounded_together() -> None:
    """A74: what a guest can make the worker hold in memory has one limit, for one call and for many."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        began.set()
        await go_on.wait()
        return await good(request)

    def body(size: int) -> io.BytesIO:
        return io.BytesIO(json.dumps({"model": MODEL, "messages": "x" * size}).encode())

    limits = GatewayLimits(request_bytes=5_000_000)
    async with provider(answer) as there, route(there.base_url, limits=limits) as here:
        first = asyncio.ensure_future(here.post(data=body(3_000_000)))
        async with asyncio.timeout(10):
            await began.wait()
        async with here.post(data=body(3_000_000)) as got:
            assert got.status == 413
        go_on.set()
        async with await first as got:
            assert got.status == 200
        async with here.post(data=body(4_500_000)) as got:
            assert got.status == 200
    assert len(there.requests) == 2


async def test_a74_second_request_in_the_body_of_the_first_is_judged_on_its_own() -> None:
    """A74: smuggling. Two lengths in one request are refused; what follows a body is a request that wants a token."""
    inner = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    body = json.dumps({"model": MODEL}).encode()
    length = b"Content-Length: %d\r\n" % len(body)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with provider(good) as there, route(there.base_url) as here:
        assert b" 400 " in (await here.raw(head + length + chunked + inner)).split(b"\r\n")[0]
        assert there.requests == []
        got = await here.raw(head + length + b"\r\n" + body + inner)
        assert b" 200 " in got.split(b"\r\n")[0]
        assert b" 401 " in got.partition(b"prompt_tokens")[2]
    assert [target for _, target, _, _ in there.requests] == ["/v1/chat/completions"]


async def test_a74_malformed_requests_fill_no_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A74: what a guest writes to the port is not written to the worker's log."""
    async with provider(good) as there, route(there.base_url) as here:
        for data in (b"\x16\x03\x01 hello\r\n\r\n", b"POST /v1/x HTTP/1.1\r\nHost: a\r\nBad Header\x00: x\r\n\r\n"):
            assert b" 400 " in await here.raw(data)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


async def test_a76_connections_over_the_limit_are_closed() -> None:
    """A76: connections that say nothing hold no more than their number."""
    async with provider(good) as there, route(there.base_url, limits=GatewayLimits(connections=3)) as here:
        idle = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(3)]
        assert await here.raw(b"") == b""
        for _, writer in idle:
            writer.close()


FROM_THE_GUEST = r"""
import http.client, json, os, sys, time
from urllib.parse import urlsplit
base, own = urlsplit(os.environ["OPENAI_BASE_URL"]), os.environ["OPENAI_API_KEY"]
def ask(path, token):
    link = http.client.HTTPConnection(base.hostname, base.port, timeout=60)
    body = json.dumps({"model": "m", "messages": []})
    link.request("POST", path, body, {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
    return link.getresponse().status
chat = base.path + "/chat/completions"
print(ask(chat, own[:-1]), ask("/v1/files", own), ask("http://127.0.0.1:1/v1/chat/completions", own), flush=True)
print(ask(chat, own), ask(chat, own), ask(chat, own), flush=True)
time.sleep(300)
"""


@pytest.mark.needs("git", "valkey")
async def test_a74_a75_a76_an_agent_in_a_guest_gets_its_own_route_and_budget_and_no_more(
    tmp_path: Path, provider_of: ProviderOf
) -> None:
    """A74, A75, A76: by the port that the guest has of it; and over its budget it is stopped though it sleeps."""
    (tmp_path / "keys").mkdir()
    async with provider(good) as there:
        models = {"paid": ModelProvider(base_url=there.base_url, key_file=key_file(tmp_path / "keys"))}
        with bench(tmp_path, provider_of, models=models) as made:
            job, result = await made.run(
                command=["python3", "-c", FROM_THE_GUEST],
                model=Model(name="m", provider="paid"),
                budget=Budget(turns=2),
                timeout_seconds=200,
            )
            log = (made.job_folder(job) / "agent.log").read_text()
    assert log == "401 404 404\n200 200 403\n" or log == "401 404 400\n200 200 403\n", log
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.BUDGET)
    assert (result.usage.turns, len(there.requests)) == (2, 2)
    assert {headers["authorization"] for _, _, headers, _ in there.requests} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("tool", ["claude", "command", "crush", "opencode", "pi"])
def test_a72_a73_guest_is_given_the_token_and_never_the_key(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A72, A73: nothing long-lived is in the guest, even when the worker's own environment holds the key."""
    from tatin_jobs.models import JobSpec, Repo
    from worker.agents.base import AgentTask, ModelRoute

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    spec = JobSpec(name="a", repo=Repo(path="."), tool=tool, command="true", model=Model(name=MODEL), prompt="p")
    route = ModelRoute("http://127.0.0.1:4017", TOKEN, MODEL, "openai")
    plan = adapter(tool).plan(AgentTask("a-1", spec, "/run/tatin/prompt.txt", "/r", "/home/agent", route))
    assert KEY not in str(plan)
    assert TOKEN in plan.env.values()
    assert TOKEN not in str(plan.argv)
