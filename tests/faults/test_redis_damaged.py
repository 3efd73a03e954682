"""Redis that is emptied, set back, full, or set up so that it forgets; and a clock of its host that jumps."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.errors import StoreUnavailable, UnknownId
from tatin_jobs.models import Job
from tatin_jobs.results import read_result
from tatin_jobs.states import JobState, Outcome
from tests.faults.harness.fleet import GATE, Fleet, fleet
from tests.faults.harness.servers import fake_clock
from tests.support.cli import argv
from tests.support.disks import fill, small_disk
from tests.support.wait import until

pytestmark = pytest.mark.needs("bwrap", "git", "valkey", "redis")
LEASE = 2.0
"""Of the harness's hosts."""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as made:
        yield made


def test_an_emptied_store_costs_the_records_and_no_running_attempt(one: Fleet) -> None:
    """F26: FLUSHALL. The attempt ends, its result is kept on its host and called accepted by nobody; the worker goes on
    with what is submitted from then on, under tokens of another store."""
    host = one.host("h1")
    (job,) = one.submit(one.spec(GATE))
    one.printed(job, b"up")
    before = one.store.store_id()
    one.server.client().flushall()
    (after,) = one.submit(one.spec())
    (ended,) = one.over(after)
    assert ended.outcome is Outcome.SUCCEEDED
    assert one.store.store_id() != before
    assert host.sandboxes(), "the attempt goes on"
    host.let_agents_end()
    host.wait_clean()
    result = read_result(host.home.attempt(job.id, 1))
    assert result is not None
    assert (result.outcome, result.accepted) == (Outcome.SUCCEEDED, False)
    assert "did.txt" in (host.home.attempt(job.id, 1) / "changes.patch").read_text()
    with pytest.raises(UnknownId):
        one.store.job(job.id)
    one.check(after)


def test_a_store_that_is_set_back_gives_no_token_again_and_gets_the_results_again(one: Fleet) -> None:
    """F26: an older copy of its files. What was running and has ended since is offered again; what had not been claimed
    runs again under a newer token; nothing is accepted twice."""
    host = one.host("h1", slots=1, cpus=1)
    running, waiting = one.submit(one.spec(GATE), one.spec("echo $TATIN_ATTEMPT; echo did > did.txt"))
    one.printed(running, b"up")
    one.server.copy_files(one.root / "older")
    host.let_agents_end()
    ended = one.over(running, waiting)
    one.server.kill()
    one.server.restore_files(one.root / "older")
    one.server.start()
    assert one.store.job(running.id).state is JobState.RUNNING, "the older copy knows no better"
    again = one.over(running, waiting)
    assert [(job.outcome, job.attempt) for job in again] == [(Outcome.SUCCEEDED, 1), (Outcome.SUCCEEDED, 2)]
    assert again[0].token == ended[0].token, "its result was offered, not made anew"
    assert _number(again[1]) > _number(ended[1])
    assert (host.home.attempt(waiting.id, 1) / "changes.patch").exists(), "superseded, and kept"
    one.check(running, waiting)


def _number(job: Job) -> int:
    return int((job.token or "").rsplit(":", 1)[1])


def test_a_full_memory_refuses_submits_and_lets_what_runs_end(one: Fleet) -> None:
    """F27."""
    host = one.host("h1")
    running, waiting = one.submit(one.spec(GATE), one.spec())
    one.printed(running, b"up")
    one.over(waiting)
    client = one.server.client()
    client.config_set("maxmemory", "1mb")
    with pytest.raises(StoreUnavailable) as refused:
        one.submit(one.spec())
    assert "maxmemory" in (refused.value.seen or "")
    host.let_agents_end()
    (ended,) = one.over(running)
    assert ended.outcome is Outcome.SUCCEEDED
    client.config_set("maxmemory", "0")
    client.close()
    one.check(running, waiting)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [("maxmemory-policy", "allkeys-lru", "maxmemory-policy"), ("appendonly", "no", "appendonly")],
)
def test_a_store_that_would_forget_jobs_is_told_loudly(one: Fleet, setting: str, value: str, words: str) -> None:
    """F28: a whole queue vanishes under an eviction policy, and with the server's death without persistence."""
    client = one.server.client()
    client.config_set(setting, value)
    client.close()
    host = one.host("h1", start=False)
    done = subprocess.run(argv("doctor"), env=host.environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3
    assert words in done.stdout.decode()
    host.start()
    until(lambda: words in host.said(), 30, "a warning of the worker")


@pytest.mark.needs("root")
@pytest.mark.parametrize(("kind", "fsync"), [("redis", "everysec"), ("redis", "always")])
def test_a_full_disk_under_the_store_loses_no_result(tmp_path: Path, kind: str, fsync: str) -> None:
    """F29: everysec refuses writes, always ends the server; submits are refused, and what runs is told afterwards."""
    disk = tmp_path / "server"
    disk.mkdir()
    with small_disk(disk, 3 * 1024), fleet(tmp_path, kind, fsync) as made:
        host = made.host("h1")
        (job,) = made.submit(made.spec(GATE))
        made.printed(job, b"up")
        filler = disk / "filler"
        fill(filler)
        until(lambda: _refuses(made), 30, "a refused submit")
        host.let_agents_end()
        until((host.home.attempt(job.id, 1) / "result.json").exists, 30, "a result on its host")
        filler.unlink()
        if made.server.has_ended():
            made.server.start()
        (ended,) = made.over(job)
        assert (ended.outcome, ended.attempt) == (Outcome.SUCCEEDED, 1)
        made.check(job)
        made.server.kill()


def _refuses(made: Fleet) -> bool:
    try:
        made.submit(made.spec(name="more", prompt="x" * 50_000))
    except StoreUnavailable:
        return True
    return False


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("jump", ["+3600", "-3600"])
def test_a_jump_of_the_stores_clock_restarts_nothing_and_holds_nobody_for_ever(tmp_path: Path, jump: str) -> None:
    """F07: an hour in each direction, under a real Valkey; a dead worker's job still comes back."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with fleet(tmp_path, "valkey", environment=fake_clock(clock)) as made:
        host, dying = made.host("h1", slots=1), made.host("dying", slots=1)
        gate = f"[ $TATIN_ATTEMPT = 2 ] || {{ {GATE}; }}; echo did > did.txt"
        first, second = made.submit(*[made.spec(gate)] * 2)
        made.printed(first, b"up")
        made.printed(second, b"up")
        before = made.server.client().time()[0]
        clock.write_text(jump)
        until(lambda: abs(made.server.client().time()[0] - before) > 3000, 10, "the jump")
        time.sleep(3 * LEASE)
        assert [made.store.job(job.id).attempt for job in (first, second)] == [1, 1]
        dying.kill()
        host.let_agents_end()
        ended = made.over(first, second)
        assert sorted((job.attempt, job.deaths) for job in ended) == [(1, 0), (2, 1)]
        dying.start()
        made.check(first, second)
