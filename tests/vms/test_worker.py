"""A whole worker on virtual machines: told to stop, and killed while an agent runs (item 5 of the faults, F03, F52)."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import Job, Need
from tatin_jobs.results import LOG_FILE
from tatin_jobs.states import JobState, Outcome
from tests.contract.conftest import spec_of
from tests.faults.harness.fleet import Fleet, fleet
from tests.faults.harness.hosts import Host
from tests.support.parts import CI_IMAGE
from worker.sandboxes.qemu import process

pytestmark = pytest.mark.needs("git", "valkey")

BOOT_SECONDS = 240
"""A machine is copied in seconds; the first of its size is booted, under emulation beside other tests."""
_SIZE = spec_of(1)
NEED = Need(cpus=_SIZE.cpus, memory_mib=_SIZE.memory_mib, disk_mib=_SIZE.disk_mib)
ENVIRONMENT = {"TATIN_SANDBOX": "qemu", "TATIN_LEASE_SECONDS": "30", "TATIN_BEAT_SECONDS": "1"}


@pytest.fixture
def some(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


@pytest.fixture
def host(some: Fleet, vm_homes: tuple[Home, Home]) -> Iterator[Host]:
    """A worker on the home with the image and the frozen states of these tests."""
    home = vm_homes[1]
    shutil.rmtree(home.blobs)  # the fleet's, by a link
    made = Host(home.root, "machines", some.server.url, blobs=some.blobs, slots=1, environment=ENVIRONMENT)
    some.hosts.append(made)
    made.start()
    yield made
    home.blobs.unlink()
    home.blobs.mkdir(mode=0o700)


def begin(some: Fleet, command: str) -> Job:
    """A job whose agent has printed ``up``."""
    spec = some.spec(command, sandbox="qemu", image=CI_IMAGE, timeout_seconds=600)
    (job,) = some.submit(spec, need=NEED)
    some.printed(job, b"up", BOOT_SECONDS)
    return job


def left(host: Host, job: Job) -> list[str]:
    """What there still is of it."""
    machines = [f"process {one.pid}" for name in host.sandboxes() for one in process.unnoted(name)]
    return [*host.sandboxes(), *machines, *(path.name for path in host.home.journal.glob("*.json"))]


def test_a_drain_lets_what_runs_in_a_machine_end(some: Fleet, host: Host) -> None:
    """F03"""
    job = begin(some, "echo up; sleep 5; echo did > did.txt")
    host.send(signal.SIGTERM)
    assert host.ended(BOOT_SECONDS) == 0
    (ended,) = some.over(job)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0)
    assert left(host, job) == []


def test_a_second_signal_hands_back_and_ends_the_machine(some: Fleet, host: Host) -> None:
    """F03, F04"""
    job = begin(some, "echo half > half.txt; echo up; sleep 500")
    host.send(signal.SIGTERM)
    host.send(signal.SIGINT)
    assert host.ended(BOOT_SECONDS) == 0
    found = some.store.job(job.id)
    assert (found.state, found.deaths, found.retries_used) == (JobState.QUEUED, 0, 0)
    assert b"half" in (host.home.attempt(job.id, 1) / "changes.patch").read_bytes()
    assert left(host, job) == []


def test_an_agent_in_a_machine_goes_on_when_its_worker_was_killed(some: Fleet, host: Host) -> None:
    """F01, F52: the next worker adopts the machine; the agent ran once, and its log is whole"""
    job = begin(some, "echo up; for n in $(seq 20); do echo line $n; sleep 1; done; echo did > did.txt")
    host.kill()
    host.start()
    (ended,) = some.over(job, timeout=BOOT_SECONDS)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0)
    log = (host.home.attempt(job.id, 1) / LOG_FILE).read_text()
    assert log.splitlines() == ["up", *(f"line {number}" for number in range(1, 21))]
    host.stop(BOOT_SECONDS)
    assert left(host, job) == []
