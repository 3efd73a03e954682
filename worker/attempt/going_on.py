"""An attempt that outlives its worker: what is noted for the next one, and how that one takes it over."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tatin_jobs.results import NetworkFacts
from worker.adoption import Adopted
from worker.agents.base import AgentPlan
from worker.attempt.creating import read_secrets, watch
from worker.attempt.model_route import open_route
from worker.attempt.parts import Parts
from worker.sandboxes.base import Sandbox

NETWORK_SECONDS = 2.0
"""What is reached and refused so long before a worker is killed may be missing in the result."""

log = logging.getLogger(__name__)


async def note_going(parts: Parts, started: float) -> None:
    """What the next worker needs to go on with this attempt, where its sandbox survives this one.

    ``started``: when the agent was, by the monotonic clock.
    """
    if not parts.context.provider.capabilities.survives_worker:
        return
    going = parts.facts.going(started, parts.base_tar, parts.plan.transcript_paths, parts.route_token)
    parts.entry = parts.entry.model_copy(update={"going": going})
    try:
        await asyncio.to_thread(parts.context.journal.write, parts.entry)
    except OSError as error:
        log.warning("action=journal sandbox=%s: it cannot be adopted: %s", parts.name, error)


def keep_network(parts: Parts) -> None:
    """From now on note what the guest reaches and is refused, for the next worker, where its sandbox survives this
    one."""
    if parts.context.provider.capabilities.survives_worker:
        parts.stack.callback(asyncio.create_task(_note_network(parts)).cancel)


async def _note_network(parts: Parts) -> None:
    context, noted = parts.context, None
    while True:
        try:
            facts = NetworkFacts.model_validate(context.redactor.tree(parts.network.facts(None).model_dump()))
            if facts != noted:
                await asyncio.to_thread(context.journal.note_network, parts.name, facts)
                noted = facts
        except OSError as error:
            log.warning("action=journal sandbox=%s: its network is not noted: %s", parts.name, error)
        except Exception:
            log.exception("action=journal sandbox=%s: its network is not noted", parts.name)
        await asyncio.sleep(NETWORK_SECONDS)


async def take_over(parts: Parts, adopted: Adopted) -> Sandbox:
    """What an earlier worker of this home had of this attempt; its agent is not disturbed."""
    going = adopted.going
    parts.entry, parts.sandbox = adopted.entry, adopted.sandbox
    parts.route_token, parts.base_tar = going.route_token, Path(going.base_tar) if going.base_tar else None
    parts.plan = AgentPlan(argv=(), transcript_paths=going.transcript_paths)
    parts.facts.go_on(going)
    await asyncio.to_thread(parts.events.begin_again)
    await read_secrets(parts)
    watch(parts, adopted.sandbox)
    await open_route(parts, adopted.sandbox)
    await parts.stack.enter_async_context(parts.network)
    reached_before = await asyncio.to_thread(parts.context.journal.network, parts.name)
    await parts.network.resume(adopted.sandbox, going.allow_lists, reached_before)
    return adopted.sandbox
