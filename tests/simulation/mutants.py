"""Planted bugs: the real scripts and functions with one fault each. The simulation must find every one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import tests.simulation.hosts
from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.store import scripts
from tests.simulation.checks import Violated
from tests.simulation.world import run_seed
from worker import recovery
from worker.context import Context
from worker.leases import Reaper

Text = tuple[str, str, str]
"""Script, what stands in it, what stands there instead."""


@contextmanager
def _changed(*changes: Text) -> Iterator[None]:
    real = scripts.script_text

    def text(name: str) -> str:
        body = real(name)
        for script, before, after in changes:
            if script in (name, "common"):
                if script == name and before not in body:
                    raise LookupError(f"{name}.lua has no {before!r} any more; correct the mutant")
                body = body.replace(before, after)
        return body

    with patch.object(scripts, "script_text", text):
        yield


@contextmanager
def _deadlines() -> Iterator[None]:
    """A lease that is over by the store's wall clock."""

    def look(self: Any, job_id: str, seen: str, now: float) -> None:
        before = self._watched.setdefault(job_id, (seen, time.time()))
        if before[0] != seen:
            self._watched[job_id] = (seen, time.time())
        elif time.time() - before[1] >= self._settings.lease_seconds:
            self._store.reap(job_id, seen, self._settings.max_deaths)
            del self._watched[job_id]

    with patch.object(Reaper, "_look", look):
        yield


@contextmanager
def _requeue_first() -> Iterator[None]:
    """Jobs are taken back before their sandboxes are gone; those are left to the next sweep."""

    async def recover(context: Context, keep: object, drop: object) -> recovery.Recovered:
        recovery.take_back(context.store, context.journal.entries(), context.settings.max_deaths)
        return recovery.Recovered("", [])

    with patch.object(tests.simulation.hosts, "recover", recover):
        yield


COUNTER: tuple[Text, ...] = (
    (
        "claim",
        "for index = 1, #leases, 2 do\n  leased[leases[index]] = true\n  take(cjson.decode(leases[index + 1]))\nend\n",
        "free.cpus = free.cpus - tonumber(text(redis.call('HGET', key('used'), worker)) == '' and 0 or "
        "redis.call('HGET', key('used'), worker))\nlingering = {}\n",
    ),
    (
        "claim",
        "redis.call('HSET', key('beats'), id, token",
        "redis.call('HINCRBY', key('used'), worker, best.part.cpus)\nredis.call('HSET', key('beats'), id, token",
    ),
    (
        "common",
        "local function unlease(id, worker)\n",
        "local function unlease(id, worker)\n"
        "  local part = redis.call('HGET', key('leases:' .. worker), id)\n"
        "  if part then redis.call('HINCRBY', key('used'), worker, -cjson.decode(part).cpus) end\n",
    ),
)

HOLDERS = ("finish", "requeue", "route", "quota")
"""Scripts by which a holder ends its attempt."""
MUTANTS: dict[str, Callable[[], Any]] = {
    "lease by deadline": _deadlines,
    "ack without token": lambda: _changed(
        *((script, "job[1] ~= 'running' or job[2] ~= token", "job[1] ~= 'running'") for script in HOLDERS)
    ),
    "claim without nonce": lambda: _changed(("claim", "if last[1] == nonce then", "if false then")),
    "capacity by counter": lambda: _changed(*COUNTER),
    "requeue before destroy": _requeue_first,
    "reap without looking": lambda: _changed(("reap", "~= ARGV[2] then", "== 'nothing' then")),
    "a cancel is overruled": lambda: _changed(
        ("reap", "if job[5] == '1' then", "if false then"), ("requeue", "if job[7] == '1' then", "if false then")
    ),
    "gates are not closed": lambda: _changed(("claim", "if closed[gate] then return false end", "")),
    "needs are not waited for": lambda: _changed(
        ("settle", "redis.call('ZCARD', key('needs:' .. id)) == 0 and", ""),
        ("common", "if redis.call('ZCARD', key('needs:' .. id)) > 0 then", "if false then"),
    ),
    "a failed need lets go": lambda: _changed(("settle", "one.ended[2] ~= 'succeeded'", "false")),
    "a death forgets the place": lambda: _changed(("reap", "into_line(id, job[3], job[6], job[7])", "")),
    "finish keeps the lease": lambda: _changed(("finish", "unlease(id, job[5])", "")),
}


def hunt(name: str, steps: int, seeds: int) -> str:
    """The first seed that finds the planted bug, and how; empty when none of them did. Raises Violated when that seed
    fails without the bug too."""
    for seed in range(seeds):
        try:
            with MUTANTS[name]():
                run_seed(seed, steps)
        except (Violated, StoreUnavailable) as error:
            run_seed(seed, steps)
            return f"seed {seed}: {error}"
    return ""
