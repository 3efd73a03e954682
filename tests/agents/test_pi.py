"""The real Pi in a bwrap sandbox, talking through ``serve`` and the model route to the scripted model server.

How it tells of each failure is in ``tests/recordings/pi`` and read by the unit tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tatin_jobs.states import Outcome, Reason
from tests.support.agents import agent_bench
from tests.support.model_route import KEY
from worker.agents.base import Api

pytestmark = [pytest.mark.needs("bwrap", "pi", "git"), pytest.mark.timeout(120)]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_demo_writes_its_tour_and_leaves_a_transcript(tmp_path: Path, api: Api) -> None:
    prompt = "/help -v '\"$(id)`\n" + "é" * 500_000 + "\nTHE-END"
    async with agent_bench("pi", tmp_path, api) as bench:
        ran = await bench.run("qwen:30b", prompt=prompt)  # a colon is also Pi's mark before a thinking level
        assert ran.verdict is not None
        assert ran.verdict.outcome is Outcome.SUCCEEDED, ran.verdict
        assert "| `src/` | 1 | 1 |" in await bench.shell("cat TOUR.md")
        assert await bench.shell("git status --short") == "?? TOUR.md\n", "nothing else was written there"
        assert ran.usage.calls == sum(event.kind == "usage" for event in ran.events) == 5
        assert (ran.usage.errors, ran.usage.refused) == ({}, 0)
        asked = [request.body for request in bench.server.requests]
        assert all("SENTINEL" in str(body) for body in asked), "AGENTS.md was read"
        user = next(message for message in asked[0]["messages"] if message["role"] == "user")
        content = user["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        assert text == prompt, "a megabyte, byte for byte"
        found = await bench.shell(f"grep -rl 'A tour of this repository' {' '.join(ran.transcripts)}")
        assert found.strip().endswith(".jsonl")
        assert await bench.shell("ls ~/EVIL 2>/dev/null || true") == "", "the repository's extension was not run"
        assert await bench.shell(f"grep -rl {KEY} /home/agent /run/tatin /tmp || true") == "", "the key is in there"


async def test_agent_that_waits_for_its_model_is_stopped_and_the_model_blamed(tmp_path: Path) -> None:
    async with agent_bench("pi", tmp_path) as bench:
        ran = await bench.run("fail-silent", idle_seconds=4)
    assert ran.followed.stalled
    blamed = ran.usage.blame(stalled=True)
    assert blamed is not None
    assert blamed[0] is Reason.PROVIDER
