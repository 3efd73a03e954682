"""Whether a service reaches its guests. A Mac's denial is played by a network namespace without a route to them, where
the stand-in for Tart says that the guest is up and what its address is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tests.support.attempts import Bench
from tests.support.cli import environment, make_job, open_queue, tatin
from tests.support.tart import STAND_IN, Tart
from tests.support.wait import until
from worker import reach
from worker.doctor import checks
from worker.reach import SERVICE_VARIABLE, Reaching, read_reach, wait_for_reach
from worker.sandboxes.fake import FakeProvider
from worker.sweep import sweep

DENIED = [
    "unshare",
    "-rn",
    "sh",
    "-c",
    'ip link set lo up && ip route add unreachable 192.168.64.0/24 && exec "$@"',
    "sh",
]
WORKER = """
import sys
from worker import reach
from worker.sandboxes.tart import local_network, provider
local_network.DENIED_SECONDS, provider.SSH_TRY_SECONDS, reach.AGAIN_SECONDS = 0.2, 0.5, 0.5
from tatin_jobs.cli import main
sys.exit(main(["worker", "--sandbox", "tart"]))
"""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVICE_VARIABLE, "launchd")
    monkeypatch.setattr(reach, "AGAIN_SECONDS", 0.05)


def provider_of(bench: Bench) -> FakeProvider:
    assert isinstance(bench.provider, FakeProvider)
    bench.provider.over_network = True
    return bench.provider


@pytest.mark.usefixtures("service")
async def test_it_is_tried_until_a_guest_is_reached(fake: Bench) -> None:
    provider = provider_of(fake)
    provider.dials.create_fails = True
    reaching = Reaching(fake.context)
    assert reaching.problem, "before anything is known nothing is claimed"
    await reaching.start()
    await asyncio.to_thread(until, lambda: "was refused" in reaching.problem)
    noted = wait_for_reach(fake.home)
    assert noted is not None
    assert not noted.finding.ok
    provider.dials.create_fails = False
    await asyncio.to_thread(until, lambda: not reaching.problem)
    noted = read_reach(fake.home)
    assert noted is not None
    assert noted.finding.ok
    assert await provider.list() == []
    await reaching.aclose()


@pytest.mark.usefixtures("service")
async def test_its_machine_is_not_swept_and_ends_with_the_worker(fake: Bench) -> None:
    provider = provider_of(fake)
    provider.dials.create_seconds = 60
    reaching = Reaching(fake.context)
    await reaching.start()
    await asyncio.to_thread(until, lambda: bool(reaching.sandboxes))
    (fake.home.sandboxes / next(iter(reaching.sandboxes))).mkdir()
    await sweep(fake.context, lambda: reaching.sandboxes)
    assert await provider.list() != []
    await reaching.aclose()
    assert await provider.list() == []


async def test_a_worker_of_a_terminal_tries_nothing(fake: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVICE_VARIABLE, raising=False)
    provider_of(fake)
    reaching = Reaching(fake.context)
    await reaching.start()
    assert reaching.problem == ""
    assert read_reach(fake.home) is None
    assert not [finding for finding in checks(fake.settings) if finding.name == "reach of guests"]


@pytest.mark.usefixtures("service")
async def test_guests_that_need_no_network_are_not_tried(fake: Bench) -> None:
    reaching = Reaching(fake.context)
    await reaching.start()
    assert reaching.problem == ""
    noted = wait_for_reach(fake.home)
    assert noted is not None
    assert noted.finding.ok


def test_a_service_that_says_nothing_is_waited_for_so_long(tmp_path: Path) -> None:
    assert wait_for_reach(Home(tmp_path), start_seconds=0) is None


@pytest.fixture
def tart(tmp_path: Path) -> Iterator[Tart]:
    """Guests answer by vsock, and have an address that this host has no route to."""
    made = Tart(tmp_path / "tart")
    made.good("create", "tatin", "--linux", "--disk-size", "2")
    made.dial(guest={"exec": ["sh", "-c", "cat > /dev/null; echo 123"]})
    yield made
    made.close()


@pytest.mark.needs("valkey", "netns")
def test_a_denied_service_takes_nothing_and_says_why(tart: Tart, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    path = f"{STAND_IN.parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(home.root, {"PATH": path, "TART_HOME": str(tart.home), SERVICE_VARIABLE: "launchd"})
    name = f"tatin-{_id_of(home)}-probe-1"
    tart.dial(addresses={name: "192.168.64.9"})
    with open_queue(home.root) as queue:
        (job,) = queue.submit(make_job())
        worker = subprocess.Popen([*DENIED, sys.executable, "-c", WORKER], env=env, cwd=tmp_path)
        try:
            until(lambda: (noted := read_reach(home)) is not None and noted.state == "no", 60)
            noted = wait_for_reach(home)
            assert noted is not None
            assert "macOS keeps this process from the local network" in noted.seen
            assert "No route to host" in noted.seen
            assert "Privacy & Security > Local Network" in noted.fix
            until(lambda: "reaches no guest" in tatin(home.root, "workers").text, 30)
            assert "reaches no guest" in tatin(home.root, "list").text
            said = tatin(home.root, "doctor", TATIN_SANDBOX="tart", PATH=path, TART_HOME=str(tart.home))
            assert said.code == 3
            assert "Privacy & Security > Local Network" in said.text
            assert queue.store.job(job.id).attempt == 0
        finally:
            worker.terminate()
            worker.wait(60)
    assert {row["Name"] for row in tart.rows()} == {"tatin"}


def _id_of(home: Home) -> str:
    home.prepare()
    return home.id()
