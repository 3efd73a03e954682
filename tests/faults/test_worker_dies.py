"""A worker that dies, freezes, shares its name, or meets a host without room: one accepted outcome, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tatin_jobs.models import Batch, Need
from tatin_jobs.results import read_result
from tatin_jobs.states import JobState, Outcome, Reason
from tests.faults.harness.fleet import GATE, SMALL, Fleet, fleet
from tests.support.cli import argv
from tests.support.disks import small_disk
from tests.support.wait import until

pytestmark = pytest.mark.needs("bwrap", "git", "valkey", "redis")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


def test_a_worker_that_was_frozen_learns_that_its_token_is_old(one: Fleet) -> None:
    """F05, F06: frozen for longer than a lease, as a host that slept; the newer attempt is undisturbed."""
    frozen, other = one.host("frozen", slots=1), one.host("other", start=False)
    (job,) = one.submit(one.spec(f"[ $TATIN_ATTEMPT = 2 ] || sleep 50; {GATE}; echo $TATIN_ATTEMPT > attempt.txt"))
    until(lambda: one.store.job(job.id).step == "agent", 30, "the agent")
    frozen.freeze()
    other.start()
    one.printed(job, b"up")
    frozen.thaw()
    frozen.wait_clean()
    assert one.store.job(job.id).attempt == 2, "the newer one goes on"
    other.let_agents_end()
    (ended,) = one.over(job)
    assert (ended.outcome, ended.worker, ended.deaths) == (Outcome.SUCCEEDED, "other", 1)
    old = read_result(frozen.home.attempt(job.id, 1))
    assert old is not None
    assert not old.accepted
    one.check(job)


def test_a_worker_that_dies_while_it_waits_for_work_takes_nothing_along(one: Fleet) -> None:
    """F25: frozen in its wait, then a job comes, then it is killed."""
    idle, other = one.host("idle", slots=1), one.host("other", start=False)
    until(one.store.workers, 30, "the worker")
    idle.freeze()
    jobs = one.submit(*[one.spec()] * 3)
    idle.kill()
    other.start()
    assert {job.outcome for job in one.over(*jobs)} == {Outcome.SUCCEEDED}
    one.check(*jobs)


@pytest.mark.parametrize("hours", [-5, 7])
def test_a_clients_wrong_clock_and_a_workers_zone_change_nothing(one: Fleet, hours: int) -> None:
    """F08: what a client's clock says is in the record and decides nothing: the order in line is the submits' own. (No
    Python runs under libfaketime, which refuses its sleeps; a worker's clock decides nothing either: test_leases.)"""
    host = one.host("h1", slots=1, start=False, environment={"TZ": "Pacific/Auckland"})
    jobs = []
    for wrong in (timedelta(hours=hours), timedelta(0), timedelta(hours=hours)):
        (job,) = one.jobs(one.spec())
        job = job.model_copy(update={"created_at": job.created_at + wrong})
        one.store.submit(Batch(id=job.batch, created_at=job.created_at, jobs=(job.id,)), [job])
        jobs.append(job)
    host.start()
    ended = one.over(*jobs)
    assert [job.outcome for job in ended] == [Outcome.SUCCEEDED] * 3
    began = [str(job.started_at) for job in ended]
    assert began == sorted(began)
    one.check(*jobs)


def test_a_name_belongs_to_one_host(one: Fleet) -> None:
    """F09: a second worker of the same name refuses, and so does a second one on the same home."""
    first = one.host("same")
    until(one.store.workers, 30, "the worker")
    second = one.host("elsewhere", environment={"TATIN_WORKER_NAME": "same"})
    assert second.ended() == 2
    assert "Another worker is called 'same'" in second.said()
    third = subprocess.Popen(
        argv("worker"), env=first.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/"
    )
    _, words = third.communicate(timeout=30)
    assert third.returncode == 2
    assert b"A worker already runs on TATIN_HOME" in words
    first.kill()
    first.start()
    (job,) = one.submit(one.spec())
    assert one.over(job)[0].outcome is Outcome.SUCCEEDED


@pytest.mark.needs("root")
def test_a_full_disk_is_told_as_such_and_leaves_no_half_result(one: Fleet) -> None:
    """F13: while an agent logs and while results are collected; below the floor nothing is claimed, and work goes on
    when there is room again."""
    host = one.host("h1", start=False)
    with small_disk(host.home.jobs, 2 * 1024):
        host.start()
        jobs = one.submit(
            one.spec("head -c 8000000 /dev/urandom | base64; sleep 1"),
            one.spec("head -c 4000000 /dev/urandom > ../big.bin; echo did"),
        )
        ended = one.over(*jobs)
        assert [(job.outcome, job.reason) for job in ended] == [(Outcome.FAILED, Reason.DISK)] * 2
        halves = [path for path in host.home.jobs.rglob(".*") if path.is_file()]
        assert halves == []
        for job in jobs:
            result = read_result(host.home.attempt(job.id, 1))
            assert result is None or result.reason is Reason.DISK
        host.stop()
    host.start()
    (after,) = one.submit(one.spec())
    assert one.over(after)[0].outcome is Outcome.SUCCEEDED
    one.check(*jobs, after)


@pytest.mark.needs("root")
def test_a_host_below_its_floor_of_disk_claims_nothing_and_says_why(one: Fleet) -> None:
    """F13."""
    root = one.root / "full"
    root.mkdir()
    with small_disk(root, 64 * 1024):
        host = one.host("full", start=False)
        text = host.home.settings_file.read_text()
        host.home.settings_file.write_text(text.replace("disk_floor_mib = 0", "disk_floor_mib = 30"))
        filler = root / "filler"
        with filler.open("wb") as file:
            file.write(b"x" * 45 * 2**20)
        host.start()
        (job,) = one.submit(one.spec(), need=Need(cpus=1, memory_mib=256, disk_mib=1, disk_wish=True))
        until(lambda: [info for info in one.store.workers() if "disk are free" in info.problem], 30, "the problem")
        assert one.store.job(job.id).state is JobState.QUEUED
        host.stop()
        filler.unlink()
        host.start()
        assert one.over(job)[0].outcome is Outcome.SUCCEEDED
        one.check(job)
        host.stop()


def test_a_guest_out_of_memory_leaves_its_neighbour_alone(one: Fleet) -> None:
    """F14."""
    one.host("h1")
    greedy, neighbour = one.submit(
        one.spec("echo on; python3 -c 'x = bytearray(2**30)'"), one.spec("sleep 1; echo did > did.txt")
    )
    ended = one.over(greedy, neighbour)
    assert [(job.outcome, job.reason) for job in ended] == [
        (Outcome.FAILED, Reason.OOM),
        (Outcome.SUCCEEDED, None),
    ]
    one.check(greedy, neighbour)


def test_a_worker_without_descriptors_fails_jobs_truly_and_does_not_spin(one: Fleet) -> None:
    """F15: with so few that no attempt can be made, it says so, leaves no sandbox, and uses next to no CPU."""
    host = one.host("h1", start=False)
    host.start("sh", "-c", 'ulimit -n 36; exec "$@"', "sh")
    (job,) = one.submit(one.spec())
    until(lambda: not host.runs() or one.store.job(job.id).state is JobState.FINISHED, 60, "an answer")
    if host.runs():
        ended = one.store.job(job.id)
        assert ended.outcome in (Outcome.SUCCEEDED, Outcome.FAILED)
        assert ended.outcome is Outcome.SUCCEEDED or ended.reason in (Reason.WORKER, Reason.SANDBOX)
        host.stop()
    else:
        assert "Too many open files" in host.said() or "descriptors" in host.said()
        assert one.store.job(job.id).state in (JobState.QUEUED, JobState.RUNNING)
    host.start()
    one.over(job)
    one.check(job)


def test_leftovers_of_a_crash_are_cleared_and_what_is_not_ours_is_left(one: Fleet) -> None:
    """F10 on bwrap: a living sandbox of another home, a half-made one of ours, a folder that is nobody's."""
    host = one.host("h1", start=False)
    (host.home.sandboxes / f"tatin-{host.home.id()}-halfmade1x-1" / "home").mkdir(parents=True)
    foreign = [host.home.sandboxes / name for name in ("tatin-00000000-abcdefghij-1", "notes")]
    for folder in foreign:
        (folder / "kept").mkdir(parents=True)
    host.start()
    (job,) = one.submit(one.spec(), need=SMALL)
    assert one.over(job)[0].outcome is Outcome.SUCCEEDED
    until(lambda: host.sandboxes() == ["tatin-00000000-abcdefghij-1"], 20, "a cleared host")
    assert all((folder / "kept").is_dir() for folder in foreign)
    until(lambda: os.listdir(host.home.journal) == [], 20, "an empty journal: removed after the sandbox is (I5)")
    host.send(signal.SIGTERM)
    assert host.ended() == 0
