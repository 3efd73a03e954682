"""What all guests of a worker share: prepared before any of them, and once; its fork server is started again."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
from pathlib import Path
from typing import cast

import psutil
import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tests.support.wait import until
from worker.sandboxes.base import SandboxSpec, StartSpec
from worker.sandboxes.bwrap import provider as provider_module
from worker.sandboxes.bwrap import sandbox as sandbox_module
from worker.sandboxes.bwrap.limits import Limits
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.names import sandbox_name

HOME_ID = "0a1b2c3e"


pytestmark = pytest.mark.needs("bwrap")


async def test_the_first_sandboxes_may_be_made_at_once(tmp_path: Path) -> None:
    provider, specs = _provider(tmp_path), [_spec(number) for number in range(1, 5)]
    made = await asyncio.gather(*map(provider.create, specs), return_exceptions=True)
    ran = [await one.run(["echo", "ok"]) if not isinstance(one, BaseException) else one for one in made]
    for spec in specs:
        await provider.destroy(spec.name)
    assert [getattr(one, "stdout", one) for one in ran] == [b"ok\n"] * 4


async def test_a_guest_outlives_the_fork_server_and_the_next_has_a_new_one(tmp_path: Path) -> None:
    provider = _provider(tmp_path)
    first = await provider.create(_spec(1))
    (server,) = _fork_servers(tmp_path) - {first.warden}
    os.kill(server, signal.SIGKILL)
    until(lambda: server not in _fork_servers(tmp_path))
    second = await provider.create(_spec(2))
    assert (await first.run(["echo", "first"])).stdout == b"first\n"
    assert (await second.run(["echo", "second"])).stdout == b"second\n"
    for sandbox in (first, second):
        await provider.destroy(sandbox.name)


async def test_a_fork_server_that_stands_still_is_an_error_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pid of a warden that has not told it is not to be killed: it is 0, which is our own process group."""
    monkeypatch.setattr(provider_module, "READY_SECONDS", 0.3)
    monkeypatch.setattr(sandbox_module, "CLOSE_SECONDS", 0.3)
    provider = _provider(tmp_path)
    await provider.destroy((await provider.create(_spec(1))).name)
    (server,) = _fork_servers(tmp_path)
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(SandboxError, match="not ready within"):
            await provider.create(_spec(2))
        assert await provider.list() == []
    finally:
        os.kill(server, signal.SIGCONT)
    assert (await (await provider.create(_spec(3))).run(["echo", "third"])).stdout == b"third\n"
    await provider.destroy(_spec(3).name)


async def test_the_fork_server_ends_with_its_provider(tmp_path: Path) -> None:
    provider = _provider(tmp_path)
    await provider.destroy((await provider.create(_spec(1))).name)
    assert _fork_servers(tmp_path)
    del provider
    gc.collect()
    until(lambda: not _fork_servers(tmp_path))


async def test_a_guest_whose_warden_was_killed_while_it_writes_is_destroyed_at_once(tmp_path: Path) -> None:
    """It is only being killed then: its folder is not yet at rest."""
    provider = _provider(tmp_path)
    making = "i=0; while mkdir -p /tmp/$i/x /home/agent/$i/x; do i=$((i+1)); done"
    for number in (1, 2):
        guest = await provider.create(_spec(number))
        run = await guest.start(StartSpec(argv=["sh", "-c", making], cwd="/"))
        while not (await guest.run(["ls", "/tmp"])).stdout:
            assert (await run.status()).exit_status is None
        os.kill(guest.warden, signal.SIGKILL)
        await provider.destroy(guest.name)
        assert not guest.has_ended
    assert await provider.list() == []


async def test_a_guest_that_has_ended_is_known_to_have(tmp_path: Path) -> None:
    provider = _provider(tmp_path)
    guest = await provider.create(_spec(1))
    assert not guest.has_ended
    await provider.destroy(guest.name)
    assert guest.has_ended


def test_cgroups_are_removed_though_the_folder_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the folder may be in them."""
    removed: list[str] = []

    def remove_tree(_: Path) -> None:
        if not removed:
            raise OSError(errno.ENOTEMPTY, "not empty")
        removed.append("folder")

    monkeypatch.setattr(provider_module, "remove_tree", remove_tree)
    monkeypatch.setattr(provider_module, "_remove_cgroups", lambda _: removed.append("cgroups"))
    provider_module._remove(cast("Limits", None), tmp_path, has_ended=True)
    assert removed == ["cgroups", "folder"]


def _provider(tmp_path: Path) -> BwrapProvider:
    home = Home(tmp_path / "home")
    home.prepare()
    return BwrapProvider(home, HOME_ID)


def _spec(number: int) -> SandboxSpec:
    return SandboxSpec(name=sandbox_name(HOME_ID, "job-abc", number), cpus=1, memory_mib=512, disk_mib=1000)


def _fork_servers(tmp_path: Path) -> set[int]:
    """Pids of the fork servers for sandboxes in this folder, and of wardens, which are forks of theirs."""
    lines = {one.pid: " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])}
    return {pid for pid, line in lines.items() if "fork_server" in line and str(tmp_path) in line}
