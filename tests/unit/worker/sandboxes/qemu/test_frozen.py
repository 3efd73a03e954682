"""Which frozen states count as there. No machine boots here: a stand-in makes the files of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tatin_jobs.home import Home
from worker.sandboxes.qemu.frozen import FrozenStates
from worker.sandboxes.qemu.machine import Shape

FILES = {"frozen.json": '{"host_key": "ssh-ed25519 AAAA"}', "state": "", "seed.tar": "", "disk.qcow2": ""}


def make_files(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the states that were made."""
    folders: list[Path] = []

    async def make(_: FrozenStates, shape: Shape, image: Any, key: Any, folder: Path) -> None:
        make_files(folder)
        folders.append(folder)

    monkeypatch.setattr(FrozenStates, "_make", make)
    return folders


@pytest.mark.parametrize("gone", [None, *FILES])
async def test_what_was_half_removed_when_somebody_was_killed_is_made_anew(
    tmp_path: Path, made: list[Path], gone: str | None
) -> None:
    home = Home(tmp_path)
    home.prepare()
    states, shape = FrozenStates(home), cast("Any", _Shape())
    first = await states.get(shape, cast("Any", None), cast("Any", None))
    if gone is not None:
        (first.folder / gone).unlink()
    assert (await states.get(shape, cast("Any", None), cast("Any", None))).folder == first.folder
    assert len(made) == (1 if gone is None else 2)


class _Shape:
    key = "2-2048-0123456789abcdef-kvm"
