"""F01: a worker killed with SIGKILL in each step leaves a job that runs again and ends once, and nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.embedded import socket_path
from tatin_jobs.models import Job, Verify, VerifyIn
from tatin_jobs.results import attempt_folders, read_result
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tests.support.attempts import Bench, bench
from tests.support.wait import until
from worker.sandboxes.bwrap.provider import BwrapProvider

pytestmark = pytest.mark.needs("bwrap", "git", "valkey")
LINGERING = [step.value for step in Step if step is not Step.DESTROYING]
POINTS = [*LINGERING, "created"]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, lambda home: BwrapProvider(home, home.id())) as one:
        yield one


def _worker(made: Bench, job: Job, point: str, **environment: str) -> int:
    command = [sys.executable, "-m", "tests.support.dying_worker", job.batch, point]
    short = {"TATIN_REAP_SECONDS": "0.2", "TATIN_LEASE_SECONDS": "2", "TATIN_BEAT_SECONDS": "0.2"}
    own = {"TATIN_HOME": str(made.home.root), **short, **environment}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **own}
    return subprocess.run(command, env=env, timeout=60, check=False).returncode


def _submit(made: Bench, where: VerifyIn = "same") -> Job:
    mark = f"{made.home.id()}-mark"
    command = f"(setsid sh -c 'exec sleep 301 {mark}' 2>/dev/null &); echo $TATIN_ATTEMPT > attempt.txt; echo said"
    return made.submit(made.spec(command=command, setup="true", verify=Verify(run="test -s attempt.txt", where=where)))


def _nothing_is_left(made: Bench) -> None:
    assert [name for name in os.listdir(made.home.sandboxes) if name.startswith("tatin-")] == []
    assert os.listdir(made.home.journal) == []
    assert made.store.misplaced() == []
    assert made.store.beats() == {}
    guests = [line for line in _command_lines() if made.home.id() in line and "bwrap" in line]
    assert guests == []


def _command_lines() -> list[str]:
    lines = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return lines


@pytest.mark.parametrize("point", POINTS)
def test_a_job_whose_worker_is_killed_runs_again_and_ends_once(made: Bench, point: str) -> None:
    job = _submit(made)
    assert _worker(made, job, point) == -9
    assert made.store.job(job.id).state is JobState.RUNNING, "nobody has noticed yet"
    assert _worker(made, job, "never") == 0
    ended = made.store.job(job.id)
    assert (ended.state, ended.outcome, ended.attempt, ended.deaths) == (JobState.FINISHED, Outcome.SUCCEEDED, 2, 1)
    assert "+2\n" in (made.home.attempt(job.id, 2) / "changes.patch").read_text()
    finished = [event for event in made.store.events(job.id) if event.move == "finish"]
    assert len(finished) == 1
    _nothing_is_left(made)


@pytest.mark.parametrize("point", ["destroying", "between", "verifying"])
def test_a_worker_killed_between_or_in_its_two_sandboxes_leaves_neither(made: Bench, point: str) -> None:
    """F01, I5: `verify` in a second sandbox, when the first is gone or about to be. At any time the journal names one:
    the job does not wait for its lease of ten minutes."""
    job = _submit(made, "fresh")
    assert _worker(made, job, point, TATIN_LEASE_SECONDS="600") == -9
    made.home.claim_note.unlink()  # as when others have been claimed since
    assert _worker(made, job, "never", TATIN_LEASE_SECONDS="600") == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 2, 1)
    _nothing_is_left(made)


def test_a_claim_that_no_journal_names_is_taken_back_by_the_next_start(made: Bench) -> None:
    """F01: killed between the claim and the first line about it; the job does not wait for its lease of ten minutes."""
    job = _submit(made)
    assert _worker(made, job, "claimed", TATIN_LEASE_SECONDS="600") == -9
    assert made.context.journal.entries() == []
    assert _worker(made, job, "never", TATIN_LEASE_SECONDS="600") == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 2, 1)
    _nothing_is_left(made)


def test_a_result_that_was_on_the_disk_is_accepted_by_the_next_start(made: Bench) -> None:
    """F01, F20: killed between the durable result and the store's word on it; the job is not run again."""
    job = _submit(made)
    assert _worker(made, job, "collected") == -9
    assert made.store.job(job.id).state is JobState.RUNNING
    assert _worker(made, job, "never") == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0)
    result = read_result(made.home.attempt(job.id, 1))
    assert result is not None
    assert result.accepted
    _nothing_is_left(made)


def test_a_job_that_was_accepted_is_not_run_again(made: Bench) -> None:
    """Killed between the accepted ending and the destroyed sandbox."""
    job = _submit(made)
    assert _worker(made, job, "accepted") == -9
    assert made.store.job(job.id).outcome is Outcome.SUCCEEDED
    assert len(os.listdir(made.home.journal)) == 1
    again = _submit(made)
    assert _worker(made, again, "never") == 0
    assert [number for number, _ in attempt_folders(made.home, job.id)] == [1]
    _nothing_is_left(made)


def test_a_job_that_kills_its_workers_is_given_up(made: Bench) -> None:
    """F47: two deaths, and it is lost rather than tried for ever."""
    job = _submit(made)
    assert _worker(made, job, "agent") == -9
    assert _worker(made, job, "agent") == -9
    assert _worker(made, job, "never") == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.reason, ended.attempt) == (Outcome.LOST, Reason.WORKER, 2)
    _nothing_is_left(made)


def test_another_host_takes_a_dead_workers_job_after_its_lease(made: Bench, tmp_path: Path) -> None:
    """I8: no clock decides, only beats that stopped."""
    job = _submit(made)
    fleet = {
        "TATIN_REDIS_URL": f"unix://{socket_path(made.home)}",
        "TATIN_LEASE_SECONDS": "1",
        "TATIN_BEAT_SECONDS": "0.2",
    }
    assert _worker(made, job, "agent", TATIN_WORKER_NAME="first", **fleet) == -9
    other = tmp_path / "other"
    os.makedirs(other)
    os.symlink(made.home.blobs, other / "blobs")
    code = _worker(made, job, "never", TATIN_WORKER_NAME="second", TATIN_HOME=str(other), **fleet)
    assert code == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.worker, ended.deaths) == (Outcome.SUCCEEDED, "second", 1)
    result = read_result(other / "jobs" / job.id / "attempt-2")
    assert result is not None
    assert result.accepted


def test_a_stopped_worker_hands_its_job_back_and_destroys_its_guest(made: Bench) -> None:
    """F03: the second signal hurries; the job is queued again, uncounted, with what it had collected."""
    job = made.submit(made.spec(command="echo half > half.txt; echo up; sleep 120"))
    env = {**os.environ, "TATIN_HOME": str(made.home.root), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.support.dying_worker", job.batch, "never"]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as worker:
        until(lambda: any(b"up" in chunk.data for chunk in made.store.read_log(job.id)), 30, "the agent's first line")
        worker.terminate()
        until(lambda: made.store.workers()[0].draining or worker.poll() is not None, 30, "the drain")
        assert worker.poll() is None, "a drain waits for what runs"
        worker.terminate()
        assert worker.wait(60) == 0
    back = made.store.job(job.id)
    assert (back.state, back.deaths, back.retries_used) == (JobState.QUEUED, 0, 0)
    assert "half.txt" in (made.home.attempt(job.id, 1) / "changes.patch").read_text()
    _nothing_is_left(made)
