"""A machine's first boot, whose state all copies go on from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tests.support.parts import CI_IMAGE
from worker.images.store import find_image
from worker.sandboxes.qemu import frozen
from worker.sandboxes.qemu.accelerator import find_accelerator
from worker.sandboxes.qemu.frozen import Frozen, FrozenStates
from worker.sandboxes.qemu.machine import Shape, arguments, disk_of
from worker.ssh import new_key

NO_INIT = " rdinit=/absent init=/absent root=/dev/absent"


class Boots:
    """Counts the boots of machines that are to be frozen; the first ``panics`` of them end in a panic of the kernel."""

    def __init__(self, panics: int) -> None:
        self.panics = panics
        self.count = 0

    def arguments(self, *shape: Any, **more: Any) -> Sequence[str]:
        argv = arguments(*shape, **more)
        self.count += 1
        if self.count <= self.panics:
            argv[argv.index("-append") + 1] += NO_INIT
        return argv


async def _freeze(home: Home, image_home: Home) -> Frozen:
    home.prepare()
    home.machines.mkdir(mode=0o700, exist_ok=True)
    image = find_image(image_home, CI_IMAGE)
    found = await asyncio.to_thread(find_accelerator, home.machines)
    shape = Shape(image.note.arch, found.name, found.qemu, image.note.digest, 1, 512)
    return await FrozenStates(home).get(shape, image, new_key("worker"))


async def test_an_image_that_does_not_boot_is_tried_twice_and_leaves_nothing(
    vm_homes: tuple[Home, Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    boots, home = Boots(2), Home(tmp_path / "home")
    monkeypatch.setattr(frozen, "arguments", boots.arguments)
    with pytest.raises(SandboxError, match="does not boot") as failed:
        await _freeze(home, vm_homes[0])
    assert "panic" in (failed.value.seen or "")
    assert boots.count == 2
    assert "panic" in caplog.text
    assert [name for name in os.listdir(home.machines / "frozen") if not name.startswith(".lock-")] == []


@pytest.mark.longer
async def test_a_kernel_that_panics_once_as_it_boots_costs_no_job(
    vm_homes: tuple[Home, Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(1)
    monkeypatch.setattr(frozen, "arguments", boots.arguments)
    state = await _freeze(Home(tmp_path / "home"), vm_homes[0])
    assert boots.count == 2
    assert state.state.stat().st_size > 2**20
    assert disk_of(state.folder).exists()
