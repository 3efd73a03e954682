"""After a crash: what this home's last worker left behind, settled before the first claim.

The home's lock is held by the one who calls this, so whatever the journal names has no living holder. Sandboxes that
die with their worker are destroyed, and their jobs are taken back at once instead of after a lease.
"""

from __future__ import annotations

import logging

from tatin_jobs.errors import TatinError
from tatin_jobs.store import Store
from worker.context import Context
from worker.journal import Entry
from worker.sweep import sweep

log = logging.getLogger(__name__)


async def recover(context: Context) -> str:
    """Destroy left-over sandboxes and take back their jobs. Returns what is wrong, as ``sweep`` does."""
    entries = context.journal.entries()
    problem = await sweep(context, live=set())
    still_there = set(context.lingering.names())
    take_back(
        context.store, [entry for entry in entries if entry.sandbox not in still_there], context.settings.max_deaths
    )
    return problem


def take_back(store: Store, entries: list[Entry], max_deaths: int) -> None:
    """Reap the leases of attempts whose worker died here; each counts as a death. A lease that somebody else has taken
    since is left alone: the beats name its token."""
    if not entries:
        return
    try:
        beats = store.beats()
        for entry in entries:
            seen = beats.get(entry.job, "")
            if seen.startswith(entry.token + "|"):
                state = store.reap(entry.job, seen, max_deaths)
                log.info("action=recover job=%s attempt=%d state=%s", entry.job, entry.attempt, state)
    except TatinError as error:
        log.warning("action=recover not done, left to the reaper: %s", error.what)
