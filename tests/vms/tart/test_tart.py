"""What a machine of Tart's promises beyond the contract: a first contact that gives nothing away, a network as softnet
leaves it, and an end that is seen and verified, whatever goes wrong. Faults are the stand-in's, guests are real."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.settings import Settings
from tests.contract import test_sandboxes as contract
from tests.contract.conftest import spec_of
from tests.support.tart import Tart
from tests.support.wait import until
from tests.vms.tart.conftest import SHARED_ID, Homes, spec
from worker.sandboxes.base import GUEST_HOME, StartSpec
from worker.sandboxes.qemu.process import unnoted
from worker.sandboxes.tart import machine as tart_machine
from worker.sandboxes.tart.machine import TartMachine
from worker.sandboxes.tart.provider import TartProvider
from worker.sandboxes.tart.sandbox import TartSandbox


@pytest.fixture
def dials(tart: Tart) -> Iterator[Tart]:
    """For a test that turns a dial."""
    if not tart.is_stand_in:
        pytest.skip("this turns a dial of the stand-in")
    yield tart
    (tart.home / "standin.json").unlink(missing_ok=True)


async def test_another_machine_is_never_taken_for_it_and_shares_nothing_with_it(
    dials: Tart, sandbox: TartSandbox, provider: TartProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F51, F60: a stale lease leads to the shared guest, which answers with the same user and lets the same worker in,
    until the right one is told. Then the machine crashes, which Tart calls an end like any other (F53)."""
    name = spec(2, SHARED_ID).name
    address = dials.good("ip", sandbox.name).strip()
    dials.dial(addresses={name: address})
    booted = _watched(monkeypatch)
    making = asyncio.create_task(provider.create(spec(2, SHARED_ID)))
    try:
        await asyncio.to_thread(until, lambda: any("Another machine answers" in one.said for one in booted), 240)
        assert not making.done()
        dials.dial(addresses={})
        made = await making
        assert made.link.endpoint.host != address
        one, two = await _identity(sandbox), await _identity(made)
        assert made.link.endpoint.host_key.split()[:2] == two[1].split()[:2], "the key that is pinned is its own"
        assert not set(one) & set(two)
        before, guest = time.time(), int((await made.run(["date", "+%s"])).stdout)
        assert before - 2 <= guest <= time.time() + 2
        await _crash(made)
    finally:
        await provider.destroy(name)
    assert name not in await provider.list()


@pytest.mark.longer
async def test_one_that_was_stopped_is_started_with_what_it_had(provider: TartProvider, tart: Tart) -> None:
    """What ``tatin down`` and ``up``, ``keep`` and ``attach`` stand on."""
    one = spec(3)
    made = await provider.create(one)
    try:
        assert (await made.run(["sh", "-c", "echo kept > work/kept"])).exit_status == 0
        image, parts, first_key = made.image, dict(made.parts), made.link.endpoint.host_key
        await provider.stop(one.name)
        assert tart.state(one.name) == "stopped"
        again = await provider.start(one.name)
        assert (await again.run(["cat", "work/kept"])).stdout == b"kept\n"
        assert (again.image, dict(again.parts)) == (image, parts)
        assert again.link.endpoint.host_key != first_key
        await again.let_go()
        same = await provider.start(one.name)
        assert same.link.endpoint.host_key == again.link.endpoint.host_key, "one that runs is left as it is"
        await same.let_go()
    finally:
        await provider.destroy(one.name)
    assert tart.state(one.name) is None
    with pytest.raises(SandboxError, match="not there to be started"):
        await provider.start(one.name)


_SELF = (
    "cat /etc/machine-id; sudo -n ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key; head -c 16 /dev/urandom | od -An -tx1"
)


async def _identity(sandbox: TartSandbox) -> list[str]:
    return (await sandbox.run(["sh", "-c", _SELF])).stdout.decode().splitlines()


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[TartMachine]:
    booted, boot = [], TartMachine.boot

    async def watched(name: str, folder: Path, network: tuple[str, ...]) -> TartMachine:
        booted.append(await boot(name, folder, network))
        return booted[-1]

    monkeypatch.setattr(TartMachine, "boot", watched)
    return booted


async def _crash(sandbox: TartSandbox) -> None:
    run = await sandbox.start(StartSpec(argv=("sleep", "600"), cwd=GUEST_HOME))
    (machine,) = unnoted(sandbox.name)
    machine.kill()
    async with asyncio.timeout(60):
        seen = await sandbox.wait_dead()
    assert "ended with status 0" in seen
    assert "due to error" in seen
    with pytest.raises(SandboxError):
        await anext(run.follow())


async def test_a_machine_behind_softnet_without_an_address_is_reached_by_exec_alone(
    dials: Tart, homes: Homes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Softnet's flags close its network; ``tart_ssh = "exec"`` needs none, also to kill all and to adopt (F52);
    and a ``tart stop`` that is not heard leaves nothing (F54)."""
    _put_softnet(tmp_path, monkeypatch)
    monkeypatch.setattr(tart_machine, "STOP_SECONDS", 1)
    dials.dial(no_lease=True, stop_ignored=True)
    provider = _by_exec(homes)
    assert provider.capabilities.egress_control
    try:
        made = await provider.create(spec_of(1))
        assert dials("ip", made.name).returncode == 1
        await contract.test_nothing_else_of_the_host_is_reached_where_that_is_promised(made)
        await made.run(["sh", "-c", "setsid sleep 300 >/dev/null 2>&1 &"])
        await made.kill_all()
        left = await made.run(["sh", "-c", "ps ax | grep -c '[s]leep 300'"])
        assert left.stdout.strip() == b"0"
        await made.start(StartSpec(argv=("sh", "-c", "echo one; sleep 3; echo two"), cwd=GUEST_HOME))
        await made.close()
        run = (await _by_exec(homes).adopt(made.name)).started("agent")
        assert b"".join([chunk.data async for chunk in run.follow()]) == b"one\ntwo\n"
    finally:
        await provider.destroy(spec_of(1).name)
    assert list(await provider.list()) == []
    assert unnoted(spec_of(1).name) == []


def _put_softnet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "softnet"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o4755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def _by_exec(homes: Homes) -> TartProvider:
    made = TartProvider(homes.other, homes.other.id())
    made.configure(Settings(home=homes.other.root, worker_name="test", tart_ssh="exec"))
    return made
