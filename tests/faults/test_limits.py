"""F49 with the real parts: a store, sandboxes, the gateway, and a provider that says its limit is reached."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from tatin_jobs.models import Lease, Model
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import HeldFor, JobState, Outcome
from tests.support.attempts import OFFER, Bench, bench
from tests.support.model_route import good, provider
from tests.support.stores import client_of
from worker.control import Control
from worker.runner import Attempt
from worker.sandboxes.bwrap.provider import BwrapProvider

pytestmark = pytest.mark.needs("git", "valkey", "bwrap")

JOBS = 50
AGENT = r"""
import json, os, sys, urllib.error, urllib.request
body = json.dumps({"model": os.environ["TATIN_MODEL"], "messages": []}).encode()
headers = {"Authorization": "Bearer " + os.environ["TATIN_MODEL_TOKEN"], "Content-Type": "application/json"}
try:
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).read()
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
print("done")
"""


class Limited:
    """A provider whose limit is reached until ``over``, and that says: at 01:00."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        one = now.replace(hour=1, minute=0, second=0, microsecond=0)
        self.reset_at = one if one > now + timedelta(minutes=5) else one + timedelta(days=1)
        self.over = False
        self.refused = self.answered = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.over:
            self.answered += 1
            return await good(request)
        self.refused += 1
        headers = {"anthropic-ratelimit-unified-reset": str(int(self.reset_at.timestamp()))}
        return web.json_response({"error": {"message": "You have hit your limit"}}, status=429, headers=headers)


def strike_one(made: Bench, limited: Limited) -> None:
    """It is 01:00: the provider answers again, and the time of the gate has come. Only the clock is not real here."""
    limited.over = True
    [gate] = made.store.gates()
    client_of(made.store).hset(f"tatin:gate:{gate.id}", "until", str(int(time.time() * 1000) - 1))


def claim(made: Bench, number: int) -> Lease | None:
    return made.store.claim("w1", OFFER, made.context.lingering.needs(), f"n{number}", 60)


async def wave(made: Bench, first: int) -> int:
    """Run what can be claimed now, as far as the host goes; how many that were."""
    leases: list[Lease] = []
    while lease := claim(made, first + len(leases)):
        leases.append(lease)
    await asyncio.gather(*(Attempt(made.context, lease, Control()).run() for lease in leases))
    return len(leases)


async def test_fifty_jobs_meet_a_limit_and_all_are_done_after_the_reset(tmp_path: Path) -> None:
    """F49: no retry is burned, nothing is asked of the provider in between, and people are told until when."""
    limited = Limited()
    async with provider(limited.answer) as there:
        models = {"local": ModelProvider(base_url=there.base_url)}
        with bench(tmp_path, lambda home: BwrapProvider(home, home.id()), models=models) as made:
            spec = made.spec(command=["python3", "-c", AGENT], model=Model(name="m", provider="local"), account="max-1")
            ids = [made.submit(spec).id for _ in range(JOBS)]
            begun = await wave(made, 0)
            assert begun == limited.refused == OFFER.slots
            assert await wave(made, begun) == 0
            for job in made.store.jobs(ids):
                assert (job.state, job.held_for) == (JobState.HELD, HeldFor.QUOTA)
                assert job.held_until is not None
                assert timedelta(0) <= job.held_until - limited.reset_at <= timedelta(minutes=2)
                assert "max-1" in job.message
            strike_one(made, limited)
            while number := await wave(made, begun):
                begun += number
            jobs = made.store.jobs(ids)
            await made.context.unpackers.aclose()
    assert {job.outcome for job in jobs} == {Outcome.SUCCEEDED}
    assert {job.retries_used for job in jobs} == {0}
    assert (limited.refused, limited.answered) == (OFFER.slots, JOBS)
    assert [job.attempt for job in jobs] == [2] * OFFER.slots + [1] * (JOBS - OFFER.slots)
