"""A worker that is stopped: politely, twice, by its terminal, by its supervisor, with its whole machine. Claims stop at
once, beats go on, every sandbox is destroyed, and no job is lost or blamed for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tatin_jobs.models import Job
from tatin_jobs.states import JobState, Outcome
from tests.faults.harness.fleet import GATE, Fleet, fleet
from tests.faults.harness.hosts import Host
from tests.support.wait import until

pytestmark = pytest.mark.needs("bwrap", "git", "valkey", "redis")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


def _handed_back(made: Fleet, job: Job) -> None:
    """Queued again, with nothing counted against it and what it had kept."""
    back = made.store.job(job.id)
    assert (back.state, back.attempt, back.deaths, back.retries_used) == (JobState.QUEUED, 1, 0, 0), back.message
    assert "stopped" in back.message


def _going(made: Fleet, count: int = 1) -> list[Job]:
    jobs = made.submit(*[made.spec(GATE)] * count)
    for job in jobs:
        made.printed(job, b"up")
    return jobs


def test_a_drain_lets_what_runs_end_and_claims_nothing_more(one: Fleet) -> None:
    """F03: shorter than its patience."""
    host = one.host("h1", slots=1)
    (job,) = _going(one)
    (waiting,) = one.submit(one.spec())
    host.send(signal.SIGTERM)
    until(lambda: one.store.workers()[0].draining, 20, "the drain")
    host.let_agents_end()
    assert host.ended() == 0
    assert one.store.job(job.id).outcome is Outcome.SUCCEEDED
    assert one.store.job(waiting.id).state is JobState.QUEUED
    assert one.store.workers() == []
    assert host.is_clean()


def test_a_drain_hands_back_what_outlasts_its_patience(one: Fleet) -> None:
    """F03: beats go on meanwhile, longer than a lease."""
    host = one.host("h1", environment={"TATIN_DRAIN_SECONDS": "4"})
    other = one.host("h2", start=False)
    (job,) = _going(one)
    host.send(signal.SIGTERM)
    assert host.ended() == 0
    _handed_back(one, job)
    assert host.is_clean()
    other.start()
    _ends(one, other, job)


def _ends(made: Fleet, host: Host, job: Job) -> None:
    """Its second attempt does, on this host."""

    def over() -> bool:
        host.let_agents_end()
        return made.store.job(job.id).state is JobState.FINISHED

    until(lambda: made.store.job(job.id).attempt == 2, 30, "the second attempt")
    until(over, 30, "its end")
    assert made.store.job(job.id).outcome is Outcome.SUCCEEDED
    made.check(job)


def test_a_supervisor_that_kills_during_the_drain_loses_nothing(one: Fleet) -> None:
    """F03: SIGTERM, then SIGKILL."""
    host = one.host("h1")
    (job,) = _going(one)
    host.send(signal.SIGTERM)
    until(lambda: one.store.workers()[0].draining, 20, "the drain")
    host.kill()
    assert one.store.job(job.id).state is JobState.RUNNING
    host.start()
    _ends(one, host, job)
    assert one.store.job(job.id).deaths == 1


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP]])
def test_a_hurried_end_hands_back_and_destroys(one: Fleet, signals: list[signal.Signals]) -> None:
    """F04: Ctrl-C twice, a closed terminal; the process ends, and nothing of it stays or is executed again."""
    host = one.host("h1")
    jobs = _going(one, 2)
    for number in signals:
        host.send(number)
        until(lambda: one.store.workers() == [] or one.store.workers()[0].draining or not host.runs(), 20, "the drain")
    assert host.ended() == 0
    for job in jobs:
        _handed_back(one, job)
    assert host.is_clean()
    assert _left_of(host.home.root) == []


def test_a_machine_that_goes_down_blames_no_job(one: Fleet) -> None:
    """F03: systemd signals every process of a service at once, the sandboxes' too; the job is handed back, and not
    failed for a sandbox that died."""
    host = one.host("h1")
    jobs = _going(one, 2)
    worker = psutil.Process(host.pid)
    assert len(_processes_of(host.home.root)) > 4, "fork server, wardens, bwrap"
    for process in [*_processes_of(host.home.root), *worker.children(recursive=True), worker]:
        with suppress(psutil.NoSuchProcess):  # gone with the one before
            process.send_signal(signal.SIGTERM)
    assert host.ended() == 0
    for job in jobs:
        _handed_back(one, job)
    assert host.is_clean()


def test_no_helper_outlives_a_killed_worker(one: Fleet) -> None:
    """F16: bwrap and its guests, git, the unpackers end by themselves."""
    host = one.host("h1")
    _going(one, 2)
    assert len(host.guests()) >= 2
    host.kill()
    until(lambda: _left_of(host.home.root) == [], 15, "an empty process table")


def _left_of(home: Path) -> list[str]:
    return [f"{process.pid} {command}" for process, command in _commands_of(home)]


def _processes_of(home: Path) -> list[psutil.Process]:
    return [process for process, _ in _commands_of(home)]


def _commands_of(home: Path) -> list[tuple[psutil.Process, list[str]]]:
    """Processes of this home, by their environment, their folder or their command line, each with the command line it
    had when it was seen: it may have ended since."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            seen = [*command, process.environ().get("TATIN_HOME", ""), process.cwd()]
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and any(str(home) in text for text in seen):
            found.append((process, command))
    return found
