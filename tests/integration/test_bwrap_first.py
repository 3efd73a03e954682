"""The first sandboxes of a worker, made at once: what all guests share is prepared before any of them, and once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from worker.sandboxes.base import SandboxSpec
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.names import sandbox_name


@pytest.mark.needs("bwrap")
async def test_the_first_sandboxes_may_be_made_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    provider = BwrapProvider(home, home.id())
    names = [sandbox_name(home.id(), "job-abc", number) for number in range(1, 5)]
    specs = [SandboxSpec(name=name, cpus=1, memory_mib=512, disk_mib=1000) for name in names]
    made = await asyncio.gather(*map(provider.create, specs), return_exceptions=True)
    ran = [await one.run(["echo", "ok"]) if not isinstance(one, BaseException) else one for one in made]
    for name in names:
        await provider.destroy(name)
    assert [getattr(one, "stdout", one) for one in ran] == [b"ok\n"] * 4
