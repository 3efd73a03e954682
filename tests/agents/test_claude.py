"""The real Claude Code in a bwrap sandbox, talking through ``serve`` and the model route to the scripted model server.

How it tells of each failure is in ``tests/recordings/claude`` and read by the unit tests; here is what needs the real
one: that the plan works, that nothing but the plan counts, and that Tatin ends what does not end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tatin_jobs.states import Outcome, Reason
from tests.support.agents import AgentBench, agent_bench
from tests.support.model_route import KEY

pytestmark = [pytest.mark.needs("bwrap", "claude", "git"), pytest.mark.timeout(120)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[AgentBench]:
    async with agent_bench("claude", tmp_path, "anthropic") as made:
        yield made


async def test_demo_writes_its_tour_and_leaves_a_transcript(bench: AgentBench) -> None:
    ran = await bench.run("demo", prompt="/help -v '\"$(id)`\n" + "é" * 500_000 + "\nTHE-END")
    assert ran.verdict is not None
    assert ran.verdict.outcome is Outcome.SUCCEEDED, ran.verdict
    assert "| `src/` | 1 | 1 |" in await bench.shell("cat TOUR.md")
    assert await bench.shell("git status --short") == "?? TOUR.md\n", "nothing else was written into the repository"
    assert ran.usage.calls == sum(event.kind == "usage" for event in ran.events) == 5
    assert (ran.usage.errors, ran.usage.refused) == ({}, 0)
    asked = [request.body for request in bench.server.requests if request.method == "POST"]
    assert all("SENTINEL" in str(body) for body in asked), "AGENTS.md was read"
    user = asked[0]["messages"][0]["content"]
    text = next(part["text"] for part in user if "THE-END" in part["text"])
    assert text == "Task:\n/help -v '\"$(id)`\n" + "é" * 500_000 + "\nTHE-END", "a megabyte, byte for byte"
    found = await bench.shell(f"grep -rl 'A tour of this repository' {' '.join(ran.transcripts)}")
    assert found.strip().endswith(".jsonl")
    assert await bench.shell("ls ~/EVIL 2>/dev/null || true") == "", "the repository's hooks and servers were not run"
    assert await bench.shell(f"grep -rl {KEY} /home/agent /run/tatin /tmp || true") == "", "the key is in the guest"


@pytest.mark.parametrize(("model", "reason"), [("fail-401", Reason.AUTH), ("fail-404", Reason.PROVIDER)])
async def test_failure_of_the_model_is_told_at_once(bench: AgentBench, model: str, reason: Reason) -> None:
    """Also a wrong key, which Claude itself would try for three minutes: the route tells it not to."""
    ran = await bench.run(model)
    assert ran.verdict is not None
    assert (ran.verdict.outcome, ran.verdict.reason) == (Outcome.FAILED, reason)
    assert ran.usage.calls <= 2


async def test_agent_that_waits_for_its_model_is_stopped_and_the_model_blamed(bench: AgentBench) -> None:
    """Claude itself would wait for five minutes, and then ask again."""
    ran = await bench.run("fail-hang", idle_seconds=4)
    assert ran.followed.stalled
    blamed = ran.usage.blame(stalled=True)
    assert blamed is not None
    assert blamed[0] is Reason.PROVIDER


async def test_subscriber_is_logged_in_by_the_token_and_told_of_its_limit(bench: AgentBench) -> None:
    ran = await bench.run("fail-usage-limit", subscription=True)
    assert ran.verdict is not None
    assert ran.verdict.reason is Reason.QUOTA
    assert ran.verdict.reset_at is not None
