"""Attempts that meet a limit at their model route: how they end, and what is told of what they used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from tatin_jobs.models import Budget, Job, Model
from tatin_jobs.results import Result
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Outcome, Reason
from tests.support.attempts import bench
from tests.support.model_route import Handler, good, provider
from worker.sandboxes.bwrap.provider import BwrapProvider

pytestmark = pytest.mark.needs("git", "valkey", "bwrap")

AGENT = r"""
import json, os, sys, time, urllib.error, urllib.request
calls, patience = int(sys.argv[1]), float(sys.argv[2])
for number in range(calls):
    body = json.dumps({"model": os.environ["TATIN_MODEL"], "messages": []}).encode()
    headers = {"Authorization": "Bearer " + os.environ["TATIN_MODEL_TOKEN"], "Content-Type": "application/json"}
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, headers)).read()
    except urllib.error.HTTPError as error:
        print("refused:", error.read().decode(), flush=True)
        time.sleep(patience)
        sys.exit(1)
    open("work.txt", "a").write("turn\n")
print("all done")
"""


@asynccontextmanager
async def ran(
    tmp_path: Path,
    handler: Handler,
    *,
    calls: int = 3,
    patience: float = 600,
    budget: Budget | None = None,
    prices: str = "",
) -> AsyncIterator[tuple[Job, Result, Path]]:
    """An attempt whose agent asks its model so often, and sleeps that long when it is refused."""
    async with provider(handler) as there:
        models = {"local": ModelProvider(base_url=there.base_url)}
        with bench(tmp_path, lambda home: BwrapProvider(home, home.id()), models=models) as made:
            (made.home.root / "prices.toml").write_text(prices)
            job, result = await made.run(
                command=["python3", "-c", AGENT, str(calls), str(patience)],
                model=Model(name="m", provider="local"),
                budget=budget,
                timeout_seconds=60,
            )
            yield job, result, made.job_folder(job)


async def test_an_agent_over_its_budget_is_stopped_and_its_work_kept(tmp_path: Path) -> None:
    """A76: the whole way: refused, stopped although it sleeps, salvaged, and a true message."""
    async with ran(tmp_path, good, calls=9, budget=Budget(turns=2)) as (job, result, folder):
        assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.BUDGET)
        assert job.message == "The budget of 2 turns is spent. The agent was stopped."
        assert (folder / "changes.patch").read_text().count("+turn") == 2
        assert (result.usage.turns, result.usage.model_calls) == (2, 2)


async def test_an_agent_within_its_budget_is_left_alone(tmp_path: Path) -> None:
    async with ran(tmp_path, good, calls=2, budget=Budget(turns=2)) as (job, _, _):
        assert job.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ("", None),
        ('[local]\n"m" = {input = 1, output = 10}', 3 * (7 + 30) / 1e6),
        ('[local]\n"*" = {input=0, output=0}', 0),
    ],
    ids=["unknown", "priced", "free"],
)
async def test_result_tells_what_was_used_and_a_cost_only_when_it_is_known(
    tmp_path: Path, prices: str, cost: float | None
) -> None:
    async with ran(tmp_path, good, prices=prices) as (job, result, _):
        usage = result.usage
        assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (21, 9, None)
        assert (usage.turns, usage.model_calls, usage.counted_by) == (3, 3, "route")
        assert usage.model_seconds is not None
        assert 0 < usage.model_seconds < 60
        assert usage.cost_usd == (cost if cost is None else pytest.approx(cost))
        assert job.summary is not None
        assert job.summary.cost_usd == usage.cost_usd


async def test_budget_in_dollars_without_a_price_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    async with ran(tmp_path, good, budget=Budget(usd=5)) as (job, result, _):
        assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.BUDGET)
        assert "knows no price for 'm' of 'local'" in job.message
        assert result.usage.model_calls == 0 or result.usage.model_calls is None


async def test_limit_that_lasts_long_stops_the_agent_and_tells_when_it_ends(tmp_path: Path) -> None:
    """F49: the agent would sleep for an hour; the job is to be held until the reset, and not this sandbox."""
    reset = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"anthropic-ratelimit-unified-reset": str(int(reset.timestamp()))}
        return web.json_response({"error": {"message": "Weekly limit."}}, status=429, headers=headers)

    async with ran(tmp_path, answer) as (_, result, _):
        assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.QUOTA)
        assert "at a limit. It says: Weekly limit. The agent was stopped" in result.message
