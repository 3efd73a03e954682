"""Limits and broken model routes: what an attempt's end tells of them, and when its job goes back uncounted.

What counts is what the host saw at the gateway. A guest that only says so holds its own job for a while, and no other:
an agent could print any number of "limit reached" (promise 6 of the threat page).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from datetime import UTC, datetime

from tatin_jobs.errors import TatinError
from tatin_jobs.models import Lease
from tatin_jobs.results import RouteFacts
from tatin_jobs.states import Reason
from tatin_jobs.store import Store
from worker.gateway.usage import RouteUsage

UNKNOWN_RESET_SECONDS = 30 * 60.0
"""How long an account is held whose provider did not say when it will answer again."""
SHORTEST_SECONDS = 5.0
JITTER_SECONDS = 60.0
"""At most; a tenth of the wait where that is less. All that wait for one reset need not come in one second."""
MAX_ROUTE_FAILURES = 3
"""A job that failed so often on a held route ends as any other: it may be what breaks the route."""
LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


def seen_at(usage: RouteUsage | None) -> RouteFacts | None:
    """What this route's figures say; None for an attempt without model."""
    if usage is None:
        return None
    blamed = usage.blame()
    if blamed and blamed[0] is Reason.QUOTA:
        return RouteFacts(limit=usage.quota.text if usage.quota else blamed[1])
    if blamed and blamed[0] is Reason.PROVIDER and not usage.last_was_ours:
        return RouteFacts(worked=False, message=blamed[1])
    return RouteFacts(worked=True if usage.answered and not blamed else None)


def pause_seconds(reset_at: datetime | None, now: datetime) -> float:
    """How long to wait for a limit to end, with some chance in it."""
    if reset_at is None:
        return UNKNOWN_RESET_SECONDS + random.uniform(0, JITTER_SECONDS)
    wait = max(SHORTEST_SECONDS, (reset_at - now).total_seconds())
    return wait + random.uniform(0, min(JITTER_SECONDS, wait / 10))


def tell_limit(store: Store, lease: Lease, seen: RouteFacts | None, reset_at: datetime | None) -> float:
    """Hold the job's account until the reset, where the gateway saw the limit. Answers how long the job itself is to be
    held: 0 where the account's gate does it. Raises LeaseLost, StoreUnavailable."""
    now = datetime.fromtimestamp(time.time(), UTC)
    pause = pause_seconds(reset_at, now)
    account = lease.job.spec.account
    if account is None or seen is None or seen.limit is None:
        return pause
    until = f" until {reset_at:%Y-%m-%d %H:%M} UTC" if reset_at else ", for how long was not said"
    store.meet_limit(lease, delay_seconds=pause, message=f"Account '{account}' is at its limit{until}: {seen.limit}")
    return 0


def tell_route(store: Store, lease: Lease, seen: RouteFacts | None) -> bool:
    """Tell the store how the route did. True when the route is held now and the job may go back uncounted."""
    if seen is None or seen.worked is None:
        return False
    news = store.tell_route(lease, worked=seen.worked, message=f"Its model does not answer: {seen.message}")
    return news.held and news.failures <= MAX_ROUTE_FAILURES


async def watch_probe(store: Store, lease: Lease, usage: RouteUsage) -> None:
    """For the attempt that probes a held route: open it with the first good answer, not with the attempt's end."""
    while not usage.answered:  # noqa: ASYNC110  figures, without an event
        await asyncio.sleep(LOOK_SECONDS)
    try:
        await asyncio.to_thread(store.tell_route, lease, worked=True)
    except TatinError as error:
        log.warning("action=probe job=%s not told: %s", lease.job.id, error.what)
