"""F01, F10 where a sandbox outlives its worker: the agent goes on, its log is whole, and there is one outcome. The
sandbox is the fake one (its processes survive their worker, as a virtual machine does); the worker is real and killed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tatin_jobs.models import Budget, Job, Network, Verify
from tatin_jobs.results import read_result
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.attempts import Bench, bench
from tests.support.wait import until
from worker.adoption import MAX_ADOPTIONS
from worker.sandboxes.fake import FakeProvider
from worker.sandboxes.names import verify_name

pytestmark = pytest.mark.needs("git", "valkey")
COUNTING = "n=0; while [ ! -e ../enough ]; do n=$((n+1)); echo line $n; echo note $n >&2; sleep 0.05; done; echo end"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, lambda home: FakeProvider(home.sandboxes, home.id(), survives_worker=True)) as one:
        yield one
        for name in asyncio.run(one.provider.list()):  # what a failed test left running
            asyncio.run(one.provider.destroy(name))


@contextmanager
def _worker(made: Bench, batch: str = "") -> Iterator[subprocess.Popen[bytes]]:
    short = {"TATIN_REAP_SECONDS": "0.2", "TATIN_LEASE_SECONDS": "3", "TATIN_BEAT_SECONDS": "0.2"}
    env = {**os.environ, "TATIN_HOME": str(made.home.root), "PYTHONPATH": os.pathsep.join(sys.path), **short}
    command = [sys.executable, "-m", "tests.faults.harness.surviving_worker", *([batch] if batch else [])]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def _printed(made: Bench, job: Job, text: bytes) -> None:
    until(lambda: any(text in chunk.data for chunk in made.store.read_log(job.id)), 30, f"{text!r} in the log")


def _enough(made: Bench, job: Job) -> None:
    """Let the agent end."""
    (guest,) = made.home.sandboxes.glob(f"tatin-*-{job.id.rsplit('-', 1)[1]}-*")
    (guest / "home" / "agent" / "work" / "enough").touch()


def _killed_while_the_agent_runs(made: Bench, job: Job, text: bytes = b"line 3\n") -> None:
    with _worker(made) as worker:
        _printed(made, job, text)
        worker.kill()


def test_an_agent_goes_on_when_its_worker_is_killed_and_its_log_is_whole(made: Bench) -> None:
    """F01, F10."""
    job = made.submit(made.spec(command=COUNTING, verify=Verify(run="echo seen")))
    _killed_while_the_agent_runs(made, job)
    assert made.store.job(job.id).state is JobState.RUNNING
    with _worker(made, job.batch) as worker:
        _printed(made, job, b"line 60\n")
        _enough(made, job)
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0), ended.message
    log = (made.home.attempt(job.id, 1) / "agent.log").read_text().splitlines()
    counted = [int(line.split()[1]) for line in log if line.startswith("line")]
    assert counted == list(range(1, len(counted) + 1)), "every line once, in order"
    assert len([line for line in log if line.startswith("note")]) == len(counted)
    assert log.count("end") == 1
    result = read_result(made.home.attempt(job.id, 1))
    assert result is not None
    assert [step.step for step in result.steps] == [
        *("creating", "provisioning", "cloning", "agent", "verifying", "collecting")
    ]
    assert (result.accepted, result.agent.exit_status) == (True, 0)
    assert os.listdir(made.home.journal) == []
    assert asyncio.run(made.provider.list()) == []


def test_an_attempt_that_was_about_to_verify_in_a_second_sandbox_goes_on_in_the_first(made: Bench) -> None:
    """F01, I5: the journal had both; that the second is not there takes no job from who goes on."""
    job = made.submit(made.spec(command=COUNTING, verify=Verify(run="echo seen", where="fresh")))
    _killed_while_the_agent_runs(made, job)
    (entry,) = made.context.journal.entries()
    second = entry.model_copy(update={"sandbox": verify_name(entry.sandbox), "going": None})
    made.context.journal.write(second)
    with _worker(made, job.batch) as worker:
        until(lambda: [one.adoptions for one in made.context.journal.entries()] == [1], 20, "an adoption")
        _enough(made, job)
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0), ended.message
    assert os.listdir(made.home.journal) == []


def test_what_a_guest_was_refused_before_its_worker_was_killed_is_in_the_result(made: Bench) -> None:
    """F10: counted on by the next worker, and told once."""
    again = "--retry 20 --retry-delay 1 --retry-all-errors"  # while nobody serves the way out: between the two workers
    ask = f"curl -s {again} -o /dev/null http://{{}}.example/"
    command = f"{ask.format('before')}; echo up; while [ ! -e ../enough ]; do sleep 0.05; done"
    command += f"; {ask.format('before')}; {ask.format('after')}"
    network = Network(mode="allowlist", allow=("allowed.example",))
    job = made.submit(made.spec(setup=ask.format("setup"), command=command, network=network))
    with _worker(made) as worker:
        _printed(made, job, b"up\n")
        (entry,) = made.context.journal.entries()
        until(lambda: b"before.example" in _noted(made, entry.sandbox), 30, "what was refused in the journal")
        worker.kill()
    with _worker(made, job.batch) as worker:
        until(lambda: made.context.journal.entries()[0].adoptions == 1, 20, "an adoption")
        _enough(made, job)
        assert worker.wait(30) == 0
    folder = made.home.attempt(job.id, 1)
    result = read_result(folder)
    assert result is not None
    assert result.network is not None
    refused = {item.where: item.times for item in result.network.denied}
    assert refused == {"setup.example:80": 1, "before.example:80": 2, "after.example:80": 1}
    assert (folder / "events.jsonl").read_text().count("blocked: before.example:80") == 1
    assert os.listdir(made.home.journal) == []


def _noted(made: Bench, sandbox: str) -> bytes:
    noted = made.context.journal.network(sandbox)
    return noted.model_dump_json().encode() if noted else b""


def test_a_time_limit_counts_from_when_the_agent_was_started(made: Bench) -> None:
    """F01, F55: a new worker gives it no more time."""
    job = made.submit(made.spec(command="echo up; sleep 60", timeout_seconds=4))
    _killed_while_the_agent_runs(made, job, b"up")
    with _worker(made, job.batch) as worker:
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.reason, ended.attempt) == (Outcome.TIMED_OUT, Reason.AGENT, 1)


def test_an_attempt_that_was_taken_back_meanwhile_is_not_gone_on_with(made: Bench) -> None:
    """F05, I8: its token is old; its sandbox is destroyed, and the newer attempt decides."""
    job = made.submit(made.spec(command="echo attempt $TATIN_ATTEMPT; [ $TATIN_ATTEMPT = 2 ] || sleep 60"))
    _killed_while_the_agent_runs(made, job, b"attempt 1")
    assert made.store.reap(job.id, made.store.beats()[job.id], 5) is JobState.QUEUED
    with _worker(made, job.batch) as worker:
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt) == (Outcome.SUCCEEDED, 2)
    assert asyncio.run(made.provider.list()) == []


def test_a_sandbox_that_died_with_its_worker_is_not_adopted(made: Bench) -> None:
    """F01, F53: its job is taken back at once, and the death is counted."""
    job = made.submit(made.spec(command="echo attempt $TATIN_ATTEMPT; [ $TATIN_ATTEMPT = 2 ] || sleep 60"))
    _killed_while_the_agent_runs(made, job, b"attempt 1")
    (guest,) = made.home.sandboxes.glob("tatin-*")
    (guest / "dead").touch()
    with _worker(made, job.batch) as worker:
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 2, 1)


def test_a_job_with_a_budget_begins_anew(made: Bench) -> None:
    """A76: what it has spent was known to the worker that died, and a budget is not given twice."""
    spec = made.spec(command="echo attempt $TATIN_ATTEMPT; [ $TATIN_ATTEMPT = 2 ] || sleep 60", budget=Budget(turns=5))
    job = made.submit(spec)
    _killed_while_the_agent_runs(made, job, b"attempt 1")
    with _worker(made, job.batch) as worker:
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 2, 1)


def test_a_cancel_that_came_while_there_was_no_worker_is_heeded(made: Bench) -> None:
    """F41."""
    job = made.submit(made.spec(command=COUNTING))
    _killed_while_the_agent_runs(made, job)
    made.store.cancel(job.id)
    with _worker(made, job.batch) as worker:
        assert worker.wait(30) == 0
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.attempt) == (Outcome.CANCELLED, 1)
    assert asyncio.run(made.provider.list()) == []


def test_an_attempt_that_kills_each_worker_is_not_adopted_for_ever(made: Bench) -> None:
    """F47."""
    job = made.submit(made.spec(command=COUNTING))
    _killed_while_the_agent_runs(made, job)
    for count in range(1, MAX_ADOPTIONS + 1):
        with _worker(made) as worker:
            until(lambda: made.context.journal.entries()[0].adoptions == count, 20, "an adoption")  # noqa: B023
            worker.kill()
    with _worker(made):
        until(lambda: made.store.job(job.id).deaths == 1, 20, "a counted death")
        made.store.cancel(job.id)
        until(lambda: made.store.job(job.id).state is JobState.FINISHED, 20, "the end")
