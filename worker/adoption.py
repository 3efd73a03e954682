"""After a worker's death: which attempts go on in sandboxes that survived it.

An attempt goes on where its agent was started (the journal says so), its sandbox still lives, and the store still
holds its lease: the same token, renewed here before anything else (I8). The new worker is then its holder as the old
one was. Everything else is destroyed and taken back, as after any death. An attempt is adopted a few times only: one
that kills its workers ends as lost, like any other (F47).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from tatin_jobs.errors import SandboxError
from tatin_jobs.models import Lease
from tatin_jobs.store import BeatAnswer
from worker.context import Context
from worker.journal import Entry, Going
from worker.sandboxes.base import Sandbox

MAX_ADOPTIONS = 3
AGENT_LABEL = "agent"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adopted:
    """An attempt that goes on: its lease, its sandbox, and what was known when its agent was started."""

    lease: Lease
    sandbox: Sandbox
    entry: Entry
    going: Going


async def adopt_living(
    context: Context, entries: list[Entry], keep: Callable[[Lease], None], drop: Callable[[Lease], None]
) -> list[Adopted]:
    """The attempts that go on here. ``keep`` has their leases renewed from now on; ``drop`` is told of one that did not
    go on after all.

    Raises:
        StoreUnavailable: nobody can say whose they are; nothing was changed.
    """
    if not context.provider.capabilities.survives_worker:
        return []
    able = [entry for entry in entries if _may_go_on(entry)]
    held = await asyncio.to_thread(_still_held, context, able)
    found = await asyncio.gather(*(_adopt(context, entry, lease, keep, drop) for entry, lease in held))
    return [adopted for adopted in found if adopted is not None]


def _may_go_on(entry: Entry) -> bool:
    """A start that lies ahead of the monotonic clock was before the host's last boot: nothing of it runs."""
    return entry.going is not None and entry.going.started <= time.monotonic() and entry.adoptions < MAX_ADOPTIONS


def _still_held(context: Context, entries: list[Entry]) -> list[tuple[Entry, Lease]]:
    answers = context.store.beat({entry.token: entry.job for entry in entries}, context.settings.lease_seconds)
    still = (BeatAnswer.HELD, BeatAnswer.CANCEL, BeatAnswer.OVERDUE)
    ours = [entry for entry in entries if answers[entry.token] in still]
    jobs = {job.id: job for job in context.store.jobs(entry.job for entry in ours)}
    return [
        (entry, Lease(job=jobs[entry.job], token=entry.token, attempt=entry.attempt))
        for entry in ours
        # What a budget has left is known to the worker that died alone: such an attempt begins anew.
        if entry.job in jobs and jobs[entry.job].spec.budget is None
    ]


async def _adopt(
    context: Context, entry: Entry, lease: Lease, keep: Callable[[Lease], None], drop: Callable[[Lease], None]
) -> Adopted | None:
    assert entry.going is not None  # the caller looked
    keep(lease)
    try:
        counted = entry.model_copy(update={"adoptions": entry.adoptions + 1})
        await asyncio.to_thread(context.journal.write, counted)  # first: an attempt that kills us is counted
        sandbox = await context.provider.adopt(entry.sandbox)
        await sandbox.started(AGENT_LABEL).status()
    except (SandboxError, OSError) as error:
        log.warning("action=adopt sandbox=%s failed: %s", entry.sandbox, error)
        drop(lease)
        return None
    log.info("action=adopt job=%s attempt=%d sandbox=%s", entry.job, entry.attempt, entry.sandbox)
    return Adopted(lease, sandbox, counted, entry.going)
