"""Redis that dies, refuses, hangs, loses replies or is slow, under whole workers with bwrap sandboxes: nothing is lost,
no healthy attempt is restarted, and work goes on within seconds of its return."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.models import Batch, Job
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store, connect
from tests.faults.harness.fleet import GATE, Fleet, fleet
from tests.faults.harness.proxy import proxy
from tests.faults.harness.servers import FSYNC, KINDS
from tests.support.cli import argv
from tests.support.wait import until

pytestmark = pytest.mark.needs("bwrap", "git", "valkey", "redis")
LEASE = 2.0
"""Of the harness's hosts."""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


def _undisturbed(made: Fleet, *jobs: Job) -> None:
    """Each succeeded in its first attempt."""
    ended = made.over(*jobs)
    assert {job.outcome for job in ended} == {Outcome.SUCCEEDED}, [job.message for job in ended]
    assert {(job.attempt, job.deaths) for job in ended} == {(1, 0)}
    made.check(*jobs)


@pytest.mark.parametrize(("kind", "fsync"), [(kind, fsync) for kind in KINDS for fsync in FSYNC])
def test_a_server_that_is_killed_costs_no_job(tmp_path: Path, kind: str, fsync: str) -> None:
    """F20, F31: jobs that wait and jobs that run; one ends while there is no server, and its result is stored."""
    with fleet(tmp_path, kind, fsync) as made:
        made.host("h1")
        short, long, waiting = made.submit(
            made.spec("echo up; sleep 1.5; echo did > did.txt"), made.spec(GATE), made.spec()
        )
        made.printed(short, b"up")
        made.printed(long, b"up")
        made.server.kill()
        log = made.hosts[0].home.attempt(short.id, 1) / "result.json"
        until(log.exists, 20, "a result on the disk while there is no server")
        made.server.start()
        for host in made.hosts:
            host.let_agents_end()
        _undisturbed(made, short, long, waiting)


def test_a_server_that_is_away_for_three_leases_restarts_no_attempt(one: Fleet) -> None:
    """F21, F23: both workers are healthy; claims go on within five seconds of its return."""
    one.host("h1", slots=1)
    one.host("h2", slots=1)
    jobs = one.submit(one.spec(GATE), one.spec(GATE))
    for job in jobs:
        one.printed(job, b"up")
    one.server.kill()
    refused = subprocess.run(argv("list"), env=one.hosts[0].environment, capture_output=True, timeout=30, check=False)
    assert refused.returncode == 3
    assert b"TATIN_REDIS_URL" in refused.stderr
    time.sleep(3 * LEASE)
    one.server.start()
    (late,) = one.submit(one.spec(name="late"))
    for host in one.hosts:
        host.let_agents_end()
    _undisturbed(one, *jobs, late)


def test_a_server_that_hangs_restarts_no_attempt_and_every_command_ends(one: Fleet) -> None:
    """F22: every call has a time limit, and what could not be told is told later."""
    one.host("h1")
    (job,) = one.submit(one.spec(GATE))
    one.printed(job, b"up")
    one.server.freeze()
    began = time.monotonic()
    done = subprocess.run(argv("list"), env=one.hosts[0].environment, capture_output=True, timeout=40, check=False)
    assert done.returncode == 3
    assert b"Timeout" in done.stderr
    assert time.monotonic() - began > LEASE, "longer than a lease"
    for host in one.hosts:
        host.let_agents_end()
    one.server.thaw()
    _undisturbed(one, job)


@pytest.mark.parametrize("command", ["logs", "wait", "run"])
def test_whoever_follows_says_that_it_waits_and_goes_on(one: Fleet, command: str) -> None:
    """F22: a cut link does not end `logs -f`, `wait` and `run`, nor the job of the last."""
    with proxy(one.server.port) as link:
        host = one.host("h1", url=link.url, start=command != "run")
        if command == "run":
            file = one.root / "job.yaml"
            file.write_text(
                f"repo: {one.root / 'repo'}\ntool: command\ncommand: {json.dumps(GATE)}\nprompt: do it\n"
                "resources: {cpus: 1, memory: 256MiB, disk: 100MiB}\n"
            )
            arguments = ["run", str(file), "-o", str(one.root / "out")]
        else:
            (job,) = one.submit(one.spec(GATE))
            one.printed(job, b"up")
            arguments = ["logs", "-f", job.id] if command == "logs" else ["wait", job.id]
        said = one.root / "said"
        with said.open("wb") as out:
            following = subprocess.Popen(argv(*arguments), env=host.environment, stdout=out, stderr=out, cwd=one.root)
        try:
            (job,) = until(lambda: one.store.list_jobs(states=[JobState.RUNNING]), 40, "a running job")
            one.printed(job, b"up")
            if command == "wait":  # the worker's wait for work, and this one
                until(lambda: _figure(one, "clients", "blocked_clients") >= 2, 40, "a command that waits")
            else:
                until(lambda: b"up" in said.read_bytes(), 40, "the first line")
            link.refuse(True)
            until(lambda: b"Waiting for it" in said.read_bytes() or following.poll() is not None, 40, "a word on it")
            assert following.poll() is None, said.read_text()
            link.refuse(False)
            until(lambda: b"is back" in said.read_bytes(), 40, "its return")
            host.let_agents_end()
            assert following.wait(60) == 0, said.read_text()
        finally:
            following.kill()
        _undisturbed(one, job)


def test_lost_replies_make_no_second_job_and_lose_no_claim(one: Fleet) -> None:
    """F24: one reply in ten is lost with its connection, of submits and of everything that a worker asks."""
    with proxy(one.server.port, seed=1) as lossy:
        lossy.cut_replies = 0.1
        one.host("h1", url=lossy.url, slots=4, cpus=4)
        far = Store(connect(lossy.url))
        jobs = [job for _ in range(12) for job in one.jobs(one.spec())]
        for job in jobs:
            until(lambda: _submitted(far, job), 20, "an answer to a submit")  # noqa: B023
        assert sum(one.store.counts().values()) == len(jobs)
        _undisturbed(one, *jobs)
        assert lossy.lost > len(jobs), "the proxy did its work"
        far.close()


def _submitted(store: Store, job: Job) -> bool:
    """Ask, and ask again with the same ids: False when every try of this call lost its reply."""
    try:
        store.submit(Batch(id=job.batch, created_at=job.created_at, jobs=(job.id,)), [job])
    except StoreUnavailable:
        return False
    return True


def test_a_slow_link_costs_no_lease(one: Fleet) -> None:
    """F33: a round trip of 0.2 to 0.4 s, with a lease of two seconds; and no storm of questions."""
    with proxy(one.server.port) as slow:
        one.host("h1", url=slow.url)
        (job,) = one.submit(one.spec(GATE))
        one.printed(job, b"up")
        slow.delay_seconds = 0.1
        before, began = _figure(one, "stats", "total_commands_processed"), time.monotonic()
        time.sleep(3 * LEASE)
        assert (_figure(one, "stats", "total_commands_processed") - before) / (time.monotonic() - began) < 40, (
            "commands a second"
        )
        for host in one.hosts:
            host.let_agents_end()
        _undisturbed(one, job)


def _figure(made: Fleet, section: str, name: str) -> int:
    """One of the server's own."""
    client = made.server.client()
    count = int(client.info(section)[name])
    client.close()
    return count


@pytest.mark.parametrize("how", ["refuses", "swallows"])
def test_a_host_that_is_cut_off_alone_is_outrun_and_its_end_refused(one: Fleet, how: str) -> None:
    """F34: for three leases. The job runs elsewhere; one outcome; the cut-off holder stops and destroys on return."""
    with proxy(one.server.port) as link:
        cut = one.host("cut", url=link.url, slots=1)
        (job,) = one.submit(one.spec("echo up $TATIN_ATTEMPT; [ $TATIN_ATTEMPT = 2 ] || sleep 50; echo did > did.txt"))
        one.printed(job, b"up 1")
        link.swallowing = how == "swallows"
        link.refuse(how == "refuses")
        one.host("other", slots=1)
        (ended,) = one.over(job)
        assert (ended.outcome, ended.worker, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, "other", 2, 1)
        assert len(cut.guests()) > 0, "a holder that cannot ask goes on (I8)"
        link.swallowing = False
        link.refuse(False)
        cut.wait_clean()
        assert one.store.job(job.id).worker == "other"
        one.check(job)


def test_a_host_that_is_cut_off_for_too_long_stops_by_itself(one: Fleet) -> None:
    """F34, I8: what the agent did is collected and kept; the job is handed back when the store can be told."""
    with proxy(one.server.port) as link:
        cut = one.host("cut", url=link.url, slots=1, environment={"TATIN_CUT_OFF_SECONDS": "3"})
        first = "[ $TATIN_ATTEMPT = 2 ] || { echo half > half.txt; echo up; sleep 50; }; echo did > did.txt"
        (job,) = one.submit(one.spec(first))
        one.printed(job, b"up")
        link.refuse(True)
        patch = cut.home.attempt(job.id, 1) / "changes.patch"
        until(lambda: patch.exists() and b"half" in patch.read_bytes(), 40, "what was collected")
        assert one.store.job(job.id).state is JobState.RUNNING
        link.refuse(False)
        (ended,) = one.over(job)
        assert (ended.outcome, ended.attempt, ended.deaths) == (Outcome.SUCCEEDED, 2, 0)
        one.check(job)
