"""F02: whole jobs under random kills, freezes, a dead server and lost replies; the history of each is checked. This is
CI's size; ``python -m benchmarks.chaos`` is the same at any size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos import Chaos, Plan, Watch
from tatin_jobs.models import Need
from tatin_jobs.results import write_result
from tatin_jobs.states import Outcome
from tests.faults.harness.fleet import problems
from tests.faults.harness.hosts import Host
from tests.support.cli import make_result
from tests.support.stores import LEASE_SECONDS, OFFER, client_of, fake_store, make_job, submit
from tests.support.wait import until


@pytest.mark.needs("bwrap", "git", "valkey", "redis")
@pytest.mark.timeout(240)
def test_kills_and_freezes_lose_nothing_and_accept_nothing_twice(tmp_path: Path) -> None:
    """F02."""
    figures = Chaos(Plan(jobs=40, workers=3, kills=5, freezes=2, redis_kills=1, seed=7), tmp_path).run()
    print(figures)
    assert figures["problems"] == []
    assert (figures["lost"], figures["accepted_twice"], figures["orphans"], figures["over_capacity"]) == (0, 0, 0, 0)
    assert figures["kills"] == 5
    assert figures["deaths"] > 0, "the kills met running jobs"


def test_the_checks_find_what_they_are_for(tmp_path: Path) -> None:
    """F02: a job that is lost, one that ended twice, one with two accepted results, a host over its capacity."""
    store = fake_store()
    lost, twice, doubled = make_job("job-lost"), make_job("job-twice"), make_job("job-doubled")
    submit(store, twice, doubled, lost)
    hosts = [Host(tmp_path / name, name, "redis://127.0.0.1:1/0") for name in ("a", "b")]
    for job, nonce in ((twice, "n1"), (doubled, "n2")):
        lease = store.claim("a", OFFER, [], nonce, LEASE_SECONDS)
        assert lease is not None
        assert lease.job.id == job.id
        store.finish(lease, Outcome.SUCCEEDED)
    ids = [lost.id, twice.id, doubled.id]
    assert problems(store, hosts, ids) == ["job-lost is lost: queued"]
    client_of(store).rpush("tatin:events:job-twice", client_of(store).lindex("tatin:events:job-twice", -1))
    for number, host in enumerate(hosts, 1):
        folder = host.home.attempt(doubled.id, number)
        folder.mkdir(parents=True)
        write_result(folder, make_result(doubled, number))
    found = problems(store, hosts, ids)
    assert [text.split()[0] for text in found] == ids
    assert "ended 2 times" in found[1]
    assert "2 accepted results" in found[2]
    watch = Watch(hosts, {"abcdefghij": Need(cpus=3, memory_mib=256, disk_mib=100)})
    (hosts[0].home.sandboxes / f"tatin-{hosts[0].home.id()}-abcdefghij-1").mkdir()
    with watch.looking():
        until(lambda: watch.over, what="a look")
    assert "a: 3 CPUs" in watch.over[0]
