"""Sandboxes that outlived their attempt: destroyed by name, verified, never one that is not this home's (I6).

The same code ends an attempt's sandbox, sweeps what resisted, and clears up after a crash at the next start. Nothing is
destroyed or forgotten on a list that could not be read (F11).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from tatin_jobs.errors import SandboxError
from tatin_jobs.store import Booked
from worker.context import Context
from worker.kept import KeptNotes
from worker.sandboxes.names import is_ours

TRIES = 3
DESTROY_SECONDS = 120.0
"""One try, of any provider: a hung one must not hold a slot for ever (F54)."""
LIST_SECONDS = 60.0
SWEEP_SECONDS = 30.0

log = logging.getLogger(__name__)


async def destroy_sandbox(context: Context, name: str) -> bool:
    """Destroy it and free what it had booked; False when it resists, and the next sweep tries again."""
    for tried in range(1, TRIES + 1):
        try:
            async with asyncio.timeout(DESTROY_SECONDS):
                await context.provider.destroy(name)
        except (SandboxError, OSError) as error:  # a TimeoutError is an OSError
            log.warning("action=destroy sandbox=%s try=%d failed: %s", name, tried, str(error) or "it hangs")
            await asyncio.sleep(tried)
        else:
            context.journal.remove(name)
            context.lingering.remove(name)
            return True
    return False


async def sweep(context: Context, live: Callable[[], set[str]]) -> str:
    """Destroy every sandbox of this home that no running attempt owns: ``live`` is asked when the list is there, since
    attempts begin while it is read. Returns what is wrong, empty when all is well:
    a worker with a problem claims nothing."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            listed = set(await context.provider.list())
    except (SandboxError, OSError) as error:
        return f"the list of sandboxes cannot be read: {str(error) or 'it hangs'}"
    kept = KeptNotes(context.home.kept).names(datetime.now(UTC))  # read after the list, as ``live`` is
    noted = {entry.sandbox: entry for entry in context.journal.entries()}
    left = sorted({name for name in listed | set(noted) if is_ours(name, context.home_id)} - live() - kept)
    resisting = []
    for name in left:
        if name in noted:
            entry = noted[name]
            context.lingering.add(name, Booked.of(entry.need, entry.job, entry.token))
        log.info("action=reap sandbox=%s", name)
        if not await destroy_sandbox(context, name):
            resisting.append(name)
    return f"{len(resisting)} sandboxes cannot be destroyed: {', '.join(resisting[:3])}" if resisting else ""
