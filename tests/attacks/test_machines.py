"""A53, A58, A68: what the command lines of virtual machines leave open, read from where they are made."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandboxes.qemu.machine import Shape, arguments
from worker.sandboxes.tart.machine import RUN_FLAGS


def _qemu(frozen: int | None = None) -> list[str]:
    image: Any = SimpleNamespace(kernel=Path("/k"), initrd=Path("/i"))
    return arguments(Shape("amd64", "tcg", "7.2", "0" * 64, 1, 1024), image, "x", frozen=frozen)


def test_a53_no_window_sound_clipboard_or_folder_is_shared() -> None:
    """A53: the flags of `tart run`; what they do on a Mac was not tried."""
    assert {"--no-graphics", "--no-audio", "--no-clipboard"} <= set(RUN_FLAGS)
    assert not {"--dir", "--rosetta", "--nested", "--vnc", "--vnc-experimental"} & set(RUN_FLAGS)
    assert not [part for part in _qemu() if part.startswith(("-virtfs", "-fsdev", "-vnc", "-spice", "-audio"))]


def test_a68_a_guest_that_runs_a_job_has_no_console_to_flood() -> None:
    """A68."""
    assert "null,id=console" in _qemu()
    assert not [part for part in _qemu() if "console.log" in part]


@pytest.mark.skipif(platform.system() != "Linux", reason="the filter is Linux's")
@pytest.mark.parametrize("frozen", [3, None], ids=["resumed for a job", "kept, and started again"])
def test_a58_the_qemu_of_a_guest_that_ran_a_job_can_start_no_program(frozen: int | None) -> None:
    """A58: a guest that broke into its QEMU may do so again after `keep`."""
    argv = _qemu(frozen)
    assert "spawn=deny" in argv[argv.index("-sandbox") + 1]
