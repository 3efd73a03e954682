"""A whole worker on Tart, with real guests: a job from queue to verdict, among machines that are others', with a worker
that is killed and with a machine that dies under its agent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.models import DEFAULT_IMAGE, Job, Need, Verify
from tatin_jobs.results import LOG_FILE, read_result
from tatin_jobs.states import Outcome, Reason
from tests.contract.conftest import HOME_ID
from tests.faults.harness.fleet import Fleet, fleet
from tests.faults.harness.hosts import Host
from tests.support.tart import Tart
from tests.vms.tart.conftest import SIZE, Homes
from worker.sandboxes.names import is_ours
from worker.sandboxes.tart.machine import running_of

pytestmark = pytest.mark.needs("git", "valkey")

MAKE_SECONDS = 240.0
NEED = Need(cpus=SIZE.cpus, memory_mib=SIZE.memory_mib, disk_mib=SIZE.disk_mib)
SHORT = {"TATIN_SANDBOX": "tart", "TATIN_LEASE_SECONDS": "30", "TATIN_BEAT_SECONDS": "1"}
FOREIGN = (f"else-{HOME_ID}", f"tatin-ffffffff-{HOME_ID}-1")


@pytest.fixture
def some(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


@pytest.fixture
def host(some: Fleet, homes: Homes, tart: Tart) -> Iterator[Host]:
    """A host whose worker is not started yet."""
    home = homes.other
    home.blobs.rmdir()  # the fleet's, by a link
    made = Host(home.root, "mac", some.server.url, blobs=some.blobs, slots=1, environment=SHORT | tart.for_a_worker)
    some.hosts.append(made)
    yield made
    made.kill()
    home.blobs.unlink()
    home.blobs.mkdir(mode=0o700)


@pytest.fixture
def foreign(tart: Tart) -> Iterator[dict[str, str]]:
    """Machines of others, one of them running: their MACs by their names."""
    for name in FOREIGN:
        tart.good("create", name, "--linux", "--disk-size", "1")
    running = tart.run(FOREIGN[1])
    yield {name: tart.config(name)["macAddress"] for name in FOREIGN}
    running.kill()
    running.communicate()
    for name in FOREIGN:
        tart("delete", name)


def begin(some: Fleet, command: str, text: bytes = b"up", **changes: object) -> Job:
    """A job whose agent has printed ``text``."""
    spec = some.spec(command, sandbox="tart", image=DEFAULT_IMAGE, timeout_seconds=600, **changes)
    (job,) = some.submit(spec, need=NEED)
    some.printed(job, text, MAKE_SECONDS)
    return job


def left(host: Host, tart: Tart) -> list[str]:
    """What there still is of attempts on this host."""
    ours = [row["Name"] for row in tart.rows() if is_ours(row["Name"], host.home.id())]
    return [*ours, *host.sandboxes(), *os.listdir(host.home.journal)]


def test_a_job_runs_in_a_clone_and_orphans_go_and_what_is_others_stays(
    some: Fleet, host: Host, tart: Tart, foreign: dict[str, str]
) -> None:
    """F01, F10: patch, log and verdict come, the clone is gone; so is what an earlier worker left, running or not."""
    ours = f"tatin-{host.home.id()}"
    for name in ("running", "stopped"):
        tart.good("clone", FOREIGN[0], f"{ours}-{name}-1")
    orphan = tart.run(f"{ours}-running-1")
    host.start()
    command = "echo up; sudo -n id -u; echo new > new.txt; uname -n > ../artifact.txt"
    job = begin(some, command, verify=Verify(run="grep -q new new.txt"))
    (ended,) = some.over(job, timeout=MAKE_SECONDS)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0), ended.message
    folder = host.home.attempt(job.id, 1)
    assert (folder / LOG_FILE).read_text() == "up\n0\n"
    assert b"+new\n" in (folder / "changes.patch").read_bytes()
    assert (folder / "artifacts" / "artifact.txt").read_text() == "tatin\n"
    result = read_result(folder)
    assert result is not None
    assert result.sandbox is not None
    assert (result.sandbox.kind, result.sandbox.separate_kernel, result.sandbox.sudo) == ("tart", True, True)
    host.stop(MAKE_SECONDS)
    assert left(host, tart) == []
    assert orphan.poll() is not None
    assert {name: tart.config(name)["macAddress"] for name in FOREIGN} == foreign
    assert [tart.state(name) for name in FOREIGN] == ["stopped", "running"]


def test_an_agent_in_a_clone_goes_on_when_its_worker_was_killed(some: Fleet, host: Host, tart: Tart) -> None:
    """F01, F52: the next worker adopts the machine; the agent ran once, and its log is whole"""
    host.start()
    job = begin(some, "echo up; for n in $(seq 8); do echo line $n; sleep 1; done; echo did > did.txt")
    host.kill()
    host.start()
    (ended,) = some.over(job, timeout=MAKE_SECONDS)
    assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 1, 0), ended.message
    log = (host.home.attempt(job.id, 1) / LOG_FILE).read_text()
    assert log.splitlines() == ["up", *(f"line {number}" for number in range(1, 9))]
    host.stop(MAKE_SECONDS)
    assert left(host, tart) == []


def test_a_clone_that_dies_under_its_agent_has_one_clear_end(some: Fleet, host: Host, tart: Tart) -> None:
    """F53: ``tart run`` is killed, and the guest with it; the attempt ends as the sandbox's failure, not the agent's"""
    host.start()
    job = begin(some, "echo up; sleep 500")
    (name,) = host.sandboxes()
    (machine,) = running_of(name)
    machine.kill()
    (ended,) = some.over(job, timeout=MAKE_SECONDS)
    assert (ended.outcome, ended.reason, ended.attempt) == (Outcome.FAILED, Reason.SANDBOX, 1), ended.message
    assert "tart run ended" in ended.message
    assert (host.home.attempt(job.id, 1) / LOG_FILE).read_text() == "up\n"
    host.stop(MAKE_SECONDS)
    assert left(host, tart) == []
