"""Endings that an adapter knows, through the whole attempt: a real Claude Code's bytes, in the fake sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.states import HeldFor, JobState, Outcome
from tests.support.attempts import Bench, bench
from worker import followed
from worker.sandboxes.fake import FakeProvider

pytestmark = pytest.mark.needs("valkey")
AGENTS = "tests.support.replayed"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Bench]:
    classes = (f"{AGENTS}:Lingering", f"{AGENTS}:Limited")
    with bench(tmp_path, lambda home: FakeProvider(home.sandboxes, home.id()), agent_classes=classes) as made:
        yield made


async def test_an_agent_that_stays_after_its_last_word_is_ended_and_has_succeeded(
    fake: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "LINGER_SECONDS", 0.3)
    job, result = await fake.run(tool=f"{AGENTS}:Lingering", command=None)
    assert job.outcome is Outcome.SUCCEEDED, job.message
    assert "stayed after its last word" in job.message
    assert (result.agent.exit_status, result.agent.timed_out) == (None, False)
    assert (result.agent.final_text or "").startswith("I wrote TOUR.md")
    assert "done.txt" in (fake.job_folder(job) / "changes.patch").read_text(), "its work is kept"


async def test_a_subscribers_limit_is_no_ending_but_a_hold(fake: Bench) -> None:
    """F49: no retry is burned. Only the agent says so here, not the gateway: so this job waits, and no other."""
    job, result = await fake.run(tool=f"{AGENTS}:Limited", command=None)
    assert (job.state, job.held_for, job.retries_used) == (JobState.HELD, HeldFor.TIME, 0)
    assert not result.accepted
    assert "You've hit your 5-hour limit" in result.message
