"""One attempt through the real runner and a real store: each way to end has one outcome, one reason, what can be kept
is kept, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import Job, LogChunk, Retries, Verify
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.attempts import Bench, bench
from tests.support.wait import until
from worker.attempt import creating
from worker.control import Control, Stop
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.fake import FakeProvider

pytestmark = pytest.mark.needs("git", "valkey")


def _dials(made: Bench) -> FakeProvider:
    assert isinstance(made.provider, FakeProvider)
    return made.provider


async def test_a_job_that_goes_well_brings_everything_back(each: Bench) -> None:
    script = 'echo said; cat "$TATIN_PROMPT_FILE" >> README.md; rm src/a.txt; echo kept > ../note.txt'
    job, result = await each.run(
        command=script, prompt="the 'prompt'\n$(id)", verify=Verify(run="grep -q prompt README.md && echo seen")
    )
    assert (job.state, job.outcome, job.reason) == (JobState.FINISHED, Outcome.SUCCEEDED, None)
    folder = each.job_folder(job)
    assert (folder / "agent.log").read_bytes() == b"said\n"
    patch = (folder / "changes.patch").read_text()
    assert "+the 'prompt'\n+$(id)" in patch
    assert "deleted file mode 100644\n" in patch
    assert (folder / "artifacts" / "note.txt").read_text() == "kept\n"
    assert (folder / "verify" / "output.log").read_bytes() == b"seen\n"
    assert result.patch is not None
    assert (result.patch.files_changed, result.patch.lines_added, result.patch.lines_removed) == (2, 2, 2)
    assert [step.step for step in result.steps] == [
        *("creating", "provisioning", "cloning", "agent", "verifying", "collecting")
    ]
    assert [item.name for item in result.artifacts] == ["note.txt"]
    assert job.summary is not None
    assert job.summary.patch_bytes == len(patch.encode())
    steps = [event.detail for event in each.store.events(job.id) if event.move == "step"]
    assert steps == ["creating", "provisioning", "cloning", "agent", "verifying", "collecting"]
    assert b"said\n" in b"".join(chunk.data for chunk in each.store.read_log(job.id))


@pytest.mark.parametrize(
    ("changes", "outcome", "reason", "words"),
    [
        ({"command": "echo no >&2; exit 3"}, Outcome.FAILED, Reason.AGENT, "exited with 3"),
        ({"command": "true"}, Outcome.FAILED, Reason.AGENT, "printed nothing and changed nothing"),
        ({"command": ["no-such-program"]}, Outcome.FAILED, Reason.AGENT, "127"),
        ({"setup": "echo half; exit 2"}, Outcome.FAILED, Reason.SETUP, "setup command exited with 2"),
        ({"verify": Verify(run="exit 1")}, Outcome.FAILED, Reason.VERIFY, "verify command exited with 1"),
        (
            {"verify": Verify(run="sleep 60", timeout_seconds=1)},
            *(Outcome.FAILED, Reason.VERIFY, "passed its time limit"),
        ),
        ({"command": "echo on; sleep 60", "timeout_seconds": 1}, Outcome.TIMED_OUT, Reason.AGENT, "time limit"),
        (
            {"command": "echo on; sleep 60", "idle_timeout_seconds": 1},
            Outcome.TIMED_OUT,
            Reason.STALLED,
            "quiet for 1 s",
        ),
        ({"command": "kill -9 $$"}, Outcome.FAILED, Reason.AGENT, "signal 9"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
async def test_each_failure_has_its_outcome_and_reason(
    each: Bench, changes: dict[str, Any], outcome: Outcome, reason: Reason, words: str
) -> None:
    """F55, F56: a hang is ended, and exit status 0 with nothing done is no success."""
    job, result = await each.run(**changes)
    assert (job.outcome, job.reason) == (outcome, reason)
    assert words in job.message
    assert (result.outcome, result.reason, result.message, result.accepted) == (outcome, reason, job.message, True)


@pytest.mark.needs("bwrap")
async def test_an_agent_that_says_nothing_but_computes_is_no_stall(tmp_path: Path) -> None:
    """F55: a build may be quiet for longer than ``idle_timeout``."""
    with bench(tmp_path, lambda home: BwrapProvider(home, home.id())) as made:
        busy = "for i in 1 2 3 4; do timeout 5 sh -c 'while :; do :; done' & done; wait; echo done > done.txt"
        job, result = await made.run(command=busy, idle_timeout_seconds=2)
    assert job.outcome is Outcome.SUCCEEDED, job.message
    assert result.sandbox is not None
    assert result.sandbox.cpu_seconds is not None
    assert result.sandbox.cpu_seconds > 0.5


async def test_a_silent_agent_that_left_only_an_artifact_did_something(each: Bench) -> None:
    job, result = await each.run(command="echo kept > ../note.txt")
    assert job.outcome is Outcome.SUCCEEDED, job.message
    assert [item.name for item in result.artifacts] == ["note.txt"]


async def test_what_a_timed_out_agent_did_is_kept(each: Bench) -> None:
    job, result = await each.run(command="echo half > half.txt; echo said; sleep 60", timeout_seconds=1)
    assert result.agent.timed_out
    assert "half.txt" in (each.job_folder(job) / "changes.patch").read_text()
    assert (each.job_folder(job) / "agent.log").read_text() == "said\n"


async def test_an_agent_that_ignores_sigterm_is_killed(each: Bench) -> None:
    """F55."""
    command = "trap '' TERM; echo on; while :; do sleep 1; done"
    job, _ = await each.run(command=command, timeout_seconds=1)
    assert (job.outcome, job.reason) == (Outcome.TIMED_OUT, Reason.AGENT)


async def test_an_agent_that_leaves_daemons_leaves_nothing(each: Bench) -> None:
    """A63, A71, F56: they are dead before verify runs."""
    command = "(setsid sh -c 'sleep 1; echo late > late.txt; sleep 300' &); echo left"
    job, _ = await each.run(command=command, verify=Verify(run="sleep 1.5; ! test -e late.txt"))
    assert job.outcome is Outcome.SUCCEEDED, job.message


async def test_a_flood_of_output_is_cut_in_the_file_and_live(each: Bench) -> None:
    """A62: the agent is not held up, agent.log is bounded and so is the stream, and both say so."""
    job, result = await each.run(command="head -c 50000000 /dev/zero | tr '\\0' 'x'; echo; echo end")
    assert job.outcome is Outcome.SUCCEEDED
    assert result.agent.stdout_bytes == 50_000_005
    assert result.agent.log_cut
    assert (each.job_folder(job) / "agent.log").stat().st_size == 2 * 2**20
    chunks = each.store.read_log(job.id)
    assert sum(len(chunk.data) for chunk in chunks) < 4 * 2**20
    assert any(chunk.stream == "tatin" and b"cut" in chunk.data for chunk in chunks)


async def test_a_sandbox_that_cannot_be_made_is_tried_again_later(fake: Bench) -> None:
    """F50."""
    _dials(fake).dials.create_fails = True
    job, result = await fake.run(retries=Retries(max=1, backoff_seconds=60))
    assert (job.state, job.retries_used, job.attempt) == (JobState.HELD, 1, 1)
    assert job.held_until is not None
    assert (result.accepted, result.reason, result.state) == (False, Reason.SANDBOX, JobState.HELD)
    fake.store.release(job.id)
    await fake.attempt(fake.claim())
    again = fake.store.job(job.id)
    assert (again.state, again.outcome, again.reason) == (JobState.FINISHED, Outcome.FAILED, Reason.SANDBOX)


async def test_an_agents_failure_is_not_tried_again(fake: Bench) -> None:
    job, _ = await fake.run(command="echo no; exit 1", retries=Retries(max=3))
    assert (job.state, job.retries_used) == (JobState.FINISHED, 0)


async def test_a_sandbox_that_dies_midway_is_told_as_such(fake: Bench) -> None:
    """F53: not as the agent's failure, and what was streamed is kept."""
    job = fake.submit(fake.spec(command="echo up; sleep 60"))
    lease = fake.claim()
    running = asyncio.create_task(fake.attempt(lease))
    await _printed(fake, job, b"up")
    await next(iter(_dials(fake).live.values())).die()
    await running
    ended = fake.store.job(job.id)
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, Reason.SANDBOX)
    assert (fake.job_folder(ended) / "agent.log").read_text() == "up\n"


@pytest.mark.needs("bwrap")
async def test_an_agent_out_of_memory_is_told_as_such(tmp_path: Path) -> None:
    """A60: not as a crash of the agent."""
    with bench(tmp_path, lambda home: BwrapProvider(home, home.id())) as made:
        job, result = await made.run(command="echo on; python3 -c 'x = bytearray(2**30)'")
        assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.OOM), job.message
        assert "256 MiB" in job.message
        assert result.sandbox is not None
        assert result.sandbox.oom_kills


async def test_a_cancel_collects_and_ends_as_cancelled(each: Bench) -> None:
    job = each.submit(each.spec(command="echo half > half.txt; echo up; sleep 60"))
    control = Control()
    running = asyncio.create_task(each.attempt(each.claim(), control))
    await _printed(each, job, b"up")
    each.store.cancel(job.id)
    control.interrupt(Stop.CANCELLED)
    await running
    ended = each.store.job(job.id)
    assert (ended.state, ended.outcome) == (JobState.FINISHED, Outcome.CANCELLED)
    assert "half.txt" in (each.job_folder(ended) / "changes.patch").read_text()


async def test_a_stopping_worker_hands_its_job_back_uncounted(each: Bench) -> None:
    """F03: collected first, and back at its old place in line."""
    job = each.submit(each.spec(command="echo half > half.txt; echo up; sleep 60"))
    control = Control()
    running = asyncio.create_task(each.attempt(each.claim(), control))
    await _printed(each, job, b"up")
    control.interrupt(Stop.SHUTDOWN)
    await running
    back = each.store.job(job.id)
    assert (back.state, back.retries_used, back.deaths) == (JobState.QUEUED, 0, 0)
    assert "half.txt" in (each.job_folder(back) / "changes.patch").read_text()
    assert each.claim().attempt == 2
    each.store.cancel(job.id)
    again = each.store.job(job.id)
    each.store.finish(_lease_of(each, again), Outcome.CANCELLED)


async def test_a_superseded_attempt_writes_nothing_about_the_job(fake: Bench) -> None:
    """A78, I2: the store refuses it, and its own result says that it does not count."""
    job = fake.submit(fake.spec(command="echo up; sleep 2; echo old > old.txt"))
    old = fake.claim()
    control = Control()
    running = asyncio.create_task(fake.attempt(old, control))
    await _printed(fake, job, b"up")
    fake.store.reap(job.id, fake.store.beats()[job.id], max_deaths=3)
    new = fake.claim()
    await running
    held = fake.store.job(job.id)
    assert (held.state, held.token, held.attempt) == (JobState.RUNNING, new.token, 2)
    result = json.loads((fake.folder(old) / "result.json").read_text())
    assert (result["accepted"], result["outcome"]) == (False, "lost")
    await fake.attempt(new)
    assert fake.store.job(job.id).outcome is Outcome.SUCCEEDED


async def test_a_sandbox_that_resists_stays_booked_until_it_is_gone(fake: Bench) -> None:
    """F54, I4: its capacity is free only when destroy is verified."""
    from worker.sweep import sweep

    _dials(fake).dials.destroy_fails = 3
    job, _ = await fake.run()
    assert job.outcome is Outcome.SUCCEEDED
    assert len(fake.context.lingering.needs()) == 1
    assert len(fake.context.journal.entries()) == 1
    assert await sweep(fake.context, set) == ""


async def test_a_running_attempt_is_booked_once(fake: Bench) -> None:
    """I4: the lease and the sandbox of one attempt are not two; a host of four slots runs four."""
    running = []
    for _ in range(4):
        job = fake.submit(fake.spec(command="echo up; sleep 2"))
        running.append(asyncio.create_task(fake.attempt(fake.claim())))
        await _printed(fake, job, b"up")
    await asyncio.gather(*running)


async def test_a_store_that_is_away_loses_no_ending(fake: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """F20: the attempt goes on without it, and its end is told when it is back."""
    from tatin_jobs.errors import StoreUnavailable

    away = {"calls": 0}
    finish = fake.store.finish

    def failing(*args: object, **more: object) -> None:
        away["calls"] += 1
        if away["calls"] < 3:
            raise StoreUnavailable("The store does not answer.")
        finish(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(fake.store, "finish", failing)
    job, result = await fake.run()
    assert (job.outcome, away["calls"]) == (Outcome.SUCCEEDED, 3)
    assert result.accepted


async def _printed(made: Bench, job: Job, text: bytes) -> list[LogChunk]:
    def seen() -> list[LogChunk]:
        return [chunk for chunk in made.store.read_log(job.id) if text in chunk.data]

    return await asyncio.to_thread(until, seen)


def _lease_of(made: Bench, job: Job):  # type: ignore[no-untyped-def]
    from tatin_jobs.models import Lease

    return Lease(job=job, token=job.token or "", attempt=job.attempt)


@pytest.mark.parametrize("readable", [True, False])
async def test_the_journal_names_the_attempt_while_its_secrets_are_read(
    fake: Bench, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """F01: a command that gives a secret may take a minute; a worker that is killed meanwhile takes its job back."""
    seen = []

    def read(*_: object) -> dict[str, str]:
        seen.extend(fake.context.journal.entries())
        if not readable:
            raise AttemptError("The secret 'TOKEN' cannot be read.", reason=Reason.AUTH)
        return {"TOKEN": "abcdefgh12345678"}

    monkeypatch.setattr(creating, "read_job_secrets", read)
    job, _ = await fake.run(secrets=("TOKEN",), retries=Retries(max=0))
    assert job.outcome is (Outcome.SUCCEEDED if readable else Outcome.FAILED)
    assert [(entry.job, entry.attempt) for entry in seen] == [(job.id, 1)]
    assert fake.context.journal.entries() == []
    assert fake.context.lingering.needs() == []
