"""The real OpenCode CLI in a bwrap sandbox, talking through ``serve`` and the model route to the scripted model server.

Its slow failures (it retries silently for a minute) are in ``tests/recordings/opencode`` and read by the unit tests;
here are only those that end at once, or that Tatin ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tatin_jobs.states import Outcome, Reason
from tests.support.agents import AgentBench, agent_bench
from tests.support.model_route import KEY

pytestmark = [pytest.mark.needs("bwrap", "opencode", "git"), pytest.mark.timeout(180)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[AgentBench]:
    async with agent_bench("opencode", tmp_path) as made:
        yield made


async def test_demo_writes_its_tour_and_leaves_a_transcript(bench: AgentBench) -> None:
    ran = await bench.run("demo", prompt="Task:\n/help -v '\"$(id)`\n" + "é" * 100_000 + "\nTHE-END")
    assert ran.verdict is not None
    assert ran.verdict.outcome is Outcome.SUCCEEDED, ran.verdict
    assert ran.verdict.final_text is not None
    assert "| `src/` | 1 | 1 |" in ran.verdict.final_text
    assert "| `src/` | 1 | 1 |" in await bench.shell("cat TOUR.md")
    assert await bench.shell("git status --short") == "?? TOUR.md\n", "nothing else was written into the repository"
    assert ran.usage.calls == sum(event.kind == "usage" for event in ran.events) == 5
    assert ran.usage.errors == {}
    assert ran.usage.refused == 0
    asked = [request.body for request in bench.server.requests]
    assert all("SENTINEL" in str(body) for body in asked), "AGENTS.md was read"
    assert not any("EVIL" in str(body) for body in asked), "the repository's configuration was read"
    user = next(message for message in asked[0]["messages"] if message["role"] == "user")
    assert "/help -v '\"$(id)`\n" in str(user["content"]).replace("\\n", "\n")
    assert str(user["content"]).count("é") == 100_000
    assert {request.headers["Authorization"] for request in bench.server.requests} == {f"Bearer {KEY}"}
    kept = (await bench.shell(f"ls {' '.join(ran.transcripts)}")).split()
    assert ran.transcripts[0] in kept
    found = await bench.shell("grep -c 'A tour of this repository' $(ls " + " ".join(ran.transcripts) + ")")
    assert any(not line.endswith(":0") for line in found.splitlines()), "the transcript holds the session"
    assert await bench.shell(f"grep -rl {KEY} /home/agent /run/tatin /tmp || true") == "", "the key is in the guest"
    assert await bench.shell("grep -rl SENTINEL /home/agent || true") != "", "that search can find something"


@pytest.mark.parametrize(
    ("model", "reason", "said"),
    [
        ("fail-401", Reason.AUTH, "401"),
        ("fail-length", Reason.AGENT, "output limit"),
    ],
)
async def test_failure_of_the_model_is_told(bench: AgentBench, model: str, reason: Reason, said: str) -> None:
    ran = await bench.run(model)
    assert ran.verdict is not None
    assert (ran.verdict.outcome, ran.verdict.reason) == (Outcome.FAILED, reason)
    assert said in ran.verdict.message


@pytest.mark.parametrize(("model", "reason"), [("fail-hang", Reason.PROVIDER), ("fail-quota", Reason.QUOTA)])
async def test_agent_that_waits_for_its_model_is_stopped_and_the_model_blamed(
    bench: AgentBench, model: str, reason: Reason
) -> None:
    """OpenCode itself would wait for minutes (headers that never come) or an hour (``Retry-After: 3600``)."""
    ran = await bench.run(model, idle_seconds=15)
    assert ran.followed.stalled
    assert ran.usage.calls == 1, "it did not give up the call before it was stopped"
    blamed = ran.usage.blame(stalled=True)
    assert blamed is not None
    assert blamed[0] is reason
