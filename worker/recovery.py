"""After a crash: what this home's last worker left behind, settled before the first claim.

The home's lock is held by the one who calls this, so whatever the journal names has no living holder. Results that
were on the disk already are offered to the store; attempts whose sandboxes live on go on; the other sandboxes are
destroyed, and their jobs are taken back at once instead of after a lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from tatin_jobs.errors import TatinError
from tatin_jobs.models import Lease
from tatin_jobs.store import Booked, Store
from worker.adoption import Adopted, adopt_living
from worker.claim_note import ClaimNote
from worker.context import Context
from worker.journal import Entry
from worker.keeping import finish_keeping
from worker.offers import offer_attempt
from worker.sandboxes.names import sandbox_name
from worker.sweep import sweep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """``problem``: what is wrong, as ``sweep`` says. ``adopted``: the attempts that go on."""

    problem: str
    adopted: list[Adopted]


async def recover(context: Context, keep: Callable[[Lease], None], drop: Callable[[Lease], None]) -> Recovered:
    """Offer, adopt, destroy, take back; ``keep`` and ``drop`` as in ``adopt_living``.

    Raises:
        StoreUnavailable: the store cannot say whether attempts that could go on are still this worker's.
    """
    context.journal.clear_drafts()
    entries = context.journal.entries()
    entries += await asyncio.to_thread(_claimed_last, context, {entry.token for entry in entries})
    unsettled = [entry for entry in entries if not await asyncio.to_thread(_offered, context, entry)]
    adopted = await adopt_living(context, unsettled, keep, drop)
    for one in adopted:
        booked = Booked.of(one.entry.need, one.entry.job, one.entry.token)
        context.lingering.add(one.entry.sandbox, booked)
    await finish_keeping(context, entries)
    living = {one.entry.sandbox for one in adopted}
    problem = await sweep(context, lambda: living)
    still_there = living | set(context.lingering.names())
    held = {entry.token for entry in unsettled if entry.sandbox in still_there}
    gone = [entry for entry in unsettled if entry.token not in held]  # a fresh verify has a second entry
    await asyncio.to_thread(take_back, context.store, gone, context.settings.max_deaths)
    return Recovered(problem, adopted)


def _claimed_last(context: Context, journaled: set[str]) -> list[Entry]:
    """What the last worker had claimed and did not live to write into its journal: asked for again by the nonce of that
    claim, which gives nothing when the attempt is over."""
    try:
        leases = [_claimed_under(context, nonce) for nonce in ClaimNote(context.home.claim_note).read()]
    except (OSError, TatinError):
        return []  # left to the reaper
    lease = next((lease for lease in leases if lease is not None), None)
    if lease is None or lease.token in journaled:
        return []
    name = sandbox_name(context.home_id, lease.job.id, lease.attempt)
    entry = Entry(sandbox=name, job=lease.job.id, attempt=lease.attempt, token=lease.token, need=lease.job.need)
    return [entry]


def _claimed_under(context: Context, nonce: str) -> Lease | None:
    """Asks for no new job: there is no slot for one."""
    name, nothing = context.settings.worker_name, context.offer.model_copy(update={"slots": 0})
    return context.store.claim(name, nothing, [], nonce, context.settings.lease_seconds, home_id=context.home_id)


def _offered(context: Context, entry: Entry) -> bool:
    """Whether this attempt had come to its end on the disk; then the store has it now, or is offered it later."""
    folder = context.home.attempt(entry.job, entry.attempt)
    return offer_attempt(context.store, folder, entry.job, entry.token)


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
