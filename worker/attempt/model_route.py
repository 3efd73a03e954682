"""The guest's way to its model: a gateway of the attempt's own, opened in front of its sandbox."""

from __future__ import annotations

import asyncio
import secrets

from worker.agents.base import ModelRoute
from worker.attempt.parts import Parts
from worker.gateway import ModelGateway, check_budget, price_of, select_provider, speaking
from worker.gateway.providers import host_and_port
from worker.holds import watch_probe
from worker.sandboxes.base import Sandbox

MODEL_PORT = 4017
"""The port of the guest's loopback at which its model answers. Any would do: the guest's network is its own."""


async def open_route(parts: Parts, sandbox: Sandbox) -> ModelRoute | None:
    """The guest's way to its model, with a token that is worth nothing elsewhere and dies with the attempt."""
    if parts.spec.model is None:
        return None
    name, provider = select_provider(parts.context.settings, parts.spec.model)
    api, provider = speaking(name, provider, parts.spec.tool, parts.agent_adapter.apis)
    token = parts.route_token = parts.route_token or secrets.token_urlsafe(32)
    price = price_of(parts.context.settings, name, provider, parts.spec.model.name)
    check_budget(parts.spec.budget, price, name, parts.spec.model.name)
    gateway = ModelGateway(
        provider, parts.spec.model, token, price=price, budget=parts.spec.budget, redactor=parts.context.redactor
    )
    parts.gateway = await parts.stack.enter_async_context(gateway)
    parts.facts.route = parts.gateway.usage
    if parts.lease.probe:
        probe = asyncio.create_task(watch_probe(parts.context.store, parts.lease, parts.gateway.usage))
        parts.stack.callback(probe.cancel)
    parts.facts.model_server = host_and_port(provider)
    await sandbox.serve(MODEL_PORT, parts.gateway.protocol)
    return ModelRoute(
        base_url=f"http://127.0.0.1:{MODEL_PORT}",
        token=token,
        model=parts.spec.model.name,
        provider=name,
        api=api,
        subscription=provider.subscription,
        context_tokens=provider.context_tokens,
    )
