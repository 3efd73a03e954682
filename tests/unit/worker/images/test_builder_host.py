"""What a host lacks for building a QEMU image is said before anything is begun, and nothing is left behind."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import pytest

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from worker.images import builder_host
from worker.images.build_qemu import build
from worker.images.builder_host import NEEDED
from worker.images.wish import BuildWish

FINE = {
    **dict.fromkeys(NEEDED, "exit 0"),
    "mmdebstrap": "echo mmdebstrap 1.3.5",
    "qemu-system-x86_64": "echo QEMU emulator version 7.2.22; exit 85",  # 85: as the little guest ends it
    "qemu-system-aarch64": "echo QEMU emulator version 7.2.22",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with stand-ins for all that is needed, run by root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in FINE.items():
        _program(folder, name, script)
    for name in ("sh", "cat"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setattr(builder_host, "SYSTEM_PATH", str(folder))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(builder_host, "is_root", lambda: True)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(builder_host, "free_disk_mib", lambda _path: 100_000)
    return folder


def _program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_host_with_all_of_it_will_do(home: Home) -> None:
    home.prepare()
    builder_host.check_host(home, BuildWish())


@pytest.mark.parametrize(
    ("programs", "what", "seen", "try_"),
    [
        ({"mmdebstrap": None}, "Programs that build an image", "mmdebstrap", "apt-get install mmdebstrap"),
        ({"debugfs": None, "mkfs.ext4": None}, "Programs that build an image", "missing: e2fsprogs", "e2fsprogs"),
        ({"mmdebstrap": "echo mmdebstrap 0.7.5"}, "mmdebstrap of this host is too old; 0.8", "0.7.5", "Debian 12"),
        ({"mmdebstrap": "exit 1"}, "mmdebstrap of this host is too old", "does not say", "Debian 12"),
        ({"qemu-system-x86_64": None, "qemu-system-aarch64": None}, "QEMU is not on this host", "", "apt-get install"),
        (
            dict.fromkeys(("qemu-system-x86_64", "qemu-system-aarch64"), "echo QEMU emulator version 5.2.0"),
            "QEMU 5.2 is too old; 7.0 is the oldest",
            "",
            "apt-get install",
        ),
    ],
)
def test_what_is_missing_or_too_old_is_told_with_its_remedy(
    home: Home, host: Path, programs: Mapping[str, str | None], what: str, seen: str, try_: str
) -> None:
    for name, script in programs.items():
        (host / name).unlink()
        if script is not None:
            _program(host, name, script)
    error = _refused(home)
    assert what in error.what
    assert seen in (error.seen or "")
    assert try_ in (error.try_ or "")


def test_a_full_disk_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_host, "free_disk_mib", lambda _path: 5_999)
    error = _refused(home, BuildWish(profile="ci"))
    assert "takes up to 6000 MiB of disk; 5999 MiB are free" in error.what
    assert str(home.images) in error.what
    assert "tatin prune" in (error.try_ or "")


def test_another_user_than_root_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_host, "is_root", lambda: False)
    assert "needs root" in _refused(home).what


def test_a_mac_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "this is Darwin" in _refused(home).what


def _refused(home: Home, wish: BuildWish | None = None) -> PartMissing:
    """What the whole build says; that it left nothing is seen too."""
    with pytest.raises(PartMissing) as caught:
        build(home, wish or BuildWish(), lambda _line: None)
    assert [path.name for path in home.images.iterdir()] == [".lock"]
    return caught.value
