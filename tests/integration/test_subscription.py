"""A Claude subscription behind the model route: the host's token where Claude Code puts it, renewed there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tatin_jobs.models import Model
from tatin_jobs.settings import ModelProvider
from tests.support.model_route import MODEL, TOKEN, Provider, good, provider
from worker.agents.base import ModelRoute
from worker.agents.command import route_environment
from worker.gateway import ModelGateway
from worker.gateway import upstream as upstream_module

ACCESS, RENEWED = "sk-ant-oat01-first-0123456789", "sk-ant-oat01-second-0123456789"


async def ask(there: Provider, token_file: Path, **headers: str) -> int:
    """One call by a guest that holds the attempt's token as a subscriber's; the status that it gets."""
    settings = ModelProvider(base_url=there.base_url, api="anthropic", key_file=token_file, subscription=True)
    gateway = ModelGateway(settings, Model(name=MODEL), TOKEN)
    async with gateway, aiohttp.ClientSession() as client:
        listener = await asyncio.get_running_loop().create_server(gateway.protocol, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        sent = {"Authorization": f"Bearer {TOKEN}", **headers}
        url = f"http://127.0.0.1:{port}/v1/messages?beta=true"
        async with client.post(url, json={"model": MODEL, "messages": []}, headers=sent) as got:
            await got.read()
        listener.close()
        return got.status


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(ACCESS)
    return path


@pytest.mark.parametrize(
    ("beta", "asked"),
    [
        ("", "oauth-2025-04-20"),
        ("a-1, oauth-2025-04-20,b-2", "a-1,oauth-2025-04-20,b-2"),
        ("a-1", "a-1,oauth-2025-04-20"),
    ],
)
async def test_subscriptions_token_takes_the_place_of_the_attempts(token_file: Path, beta: str, asked: str) -> None:
    """A75: what the guest holds is worth nothing at the provider."""
    async with provider(good) as there:
        assert await ask(there, token_file, **({"anthropic-beta": beta} if beta else {}), **{"x-app": "cli"}) == 200
    sent = there.requests[0][2]
    assert sent["authorization"] == f"Bearer {ACCESS}"
    assert sent["anthropic-beta"] == asked
    assert sent["x-app"] == "cli"
    assert "x-api-key" not in sent
    assert TOKEN not in str(there.requests)


async def test_token_that_ran_out_is_looked_up_anew_once(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps the token on the host renewed it meanwhile; the guest's call does not fail for it."""
    monkeypatch.setattr(upstream_module, "RENEW_SECONDS", 0)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers["Authorization"] == f"Bearer {RENEWED}":
            return await good(request)
        await asyncio.to_thread(token_file.write_text, RENEWED)
        return web.json_response({"error": {"message": "expired"}}, status=401)

    async with provider(answer) as there:
        assert await ask(there, token_file) == 200
    assert len(there.requests) == 2


async def test_token_that_stays_wrong_is_refused_once(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "RENEW_SECONDS", 0)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"no: {ACCESS}"}}, status=401)

    async with provider(answer) as there:
        assert await ask(there, token_file) == 401
    assert len(there.requests) == 1


def test_guest_of_a_subscription_is_told_to_ask_as_a_subscriber() -> None:
    """Only with CLAUDE_CODE_OAUTH_TOKEN does Claude Code send what the server wants (seen with 2.1.332)."""
    env = route_environment(ModelRoute("http://127.0.0.1:1", TOKEN, "m", "max", api="anthropic", subscription=True))
    assert env["CLAUDE_CODE_OAUTH_TOKEN"] == TOKEN
    assert "ANTHROPIC_API_KEY" not in env
