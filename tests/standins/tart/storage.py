"""TART_HOME: the folders of the VMs, their configuration, and the locks that are their state.

A VM runs as long as another process holds a POSIX write lock on its ``config.json``; nothing else says so, and nothing
is left of it when that process dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.standins.tart.failures import TartFailure, no_such_vm

GIGABYTE = 10**9
FILES = ("config.json", "disk.img", "nvram.bin")
SUSPENDED = "state.vzvmsave"
_FLOCK = "hhqqi4x"
_QCOW2 = b"QFI\xfb"


class Home:
    """``TART_HOME``, made if it is missing."""

    def __init__(self) -> None:
        self.path = Path(os.environ.get("TART_HOME") or Path.home() / ".tart")
        try:
            for folder in (self.vms, self.tmp, self.images):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TartFailure(
                f"TART_HOME is invalid: {self.path} does not exist, yet we can't create it: {error}"
            ) from error

    @property
    def vms(self) -> Path:
        return self.path / "vms"

    @property
    def tmp(self) -> Path:
        return self.path / "tmp"

    @property
    def images(self) -> Path:
        return self.path / "cache" / "OCIs"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The lock of the whole home: waited for without a limit."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder in ``tmp``, locked while it is made; removed unless it was moved away."""
        folder = self.tmp / str(uuid.uuid4()).upper()
        folder.mkdir()
        fd = os.open(folder, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            os.close(fd)
            shutil.rmtree(folder, ignore_errors=True)

    def collect_garbage(self) -> None:
        """Remove what killed commands left in ``tmp``."""
        for folder in self.tmp.iterdir():
            with _opened(folder) as fd:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                shutil.rmtree(folder, ignore_errors=True)

    def local(self) -> list[VM]:
        """The whole VMs, by name."""
        return [VM(folder) for folder in sorted(self.vms.iterdir()) if VM(folder).is_whole()]

    def vm(self, name: str) -> VM:
        """A local VM.

        Raises:
            TartFailure: it does not exist, or lacks some of its files.
        """
        vm = VM(self.vms / name)
        if "/" in name or not (vm.path / "config.json").exists():
            raise no_such_vm(name)
        if not vm.is_whole():
            raise TartFailure("VM is missing some of its files (config.json, disk.img or nvram.bin)")
        return vm


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


class VM:
    """One VM's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def is_whole(self) -> bool:
        return all((self.path / file).exists() for file in FILES)

    @property
    def disk(self) -> Path:
        return self.path / "disk.img"

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return found

    def write_config(self, config: dict[str, Any]) -> None:
        """In place: the lock is the file's, so it must stay the same file."""
        (self.path / "config.json").write_text(json.dumps(config))

    def running_pid(self) -> int | None:
        """The process that holds the lock."""
        with (self.path / "config.json").open("rb+") as file:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)

    def state(self) -> str:
        if self.running_pid() is not None:
            return "running"
        return "suspended" if (self.path / SUSPENDED).exists() else "stopped"

    def disk_bytes(self) -> int:
        """The size that the guest sees."""
        with self.disk.open("rb") as file:
            head = file.read(32)
        return int.from_bytes(head[24:32], "big") if head[:4] == _QCOW2 else self.disk.stat().st_size

    def allocated_bytes(self) -> int:
        return sum((self.path / name).stat().st_blocks * 512 for name in FILES)

    def is_qcow2(self) -> bool:
        with self.disk.open("rb") as file:
            return file.read(4) == _QCOW2


def call(*argv: str) -> None:
    """Run a program of the host.

    Raises:
        TartFailure: it failed.
    """
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TartFailure(f"Error: {done.stderr.strip()}")


def copy_file(source: Path, target: Path) -> None:
    """As a clone where the file system can, else without its holes."""
    call("cp", "--reflink=auto", "--sparse=always", str(source), str(target))


def new_mac() -> str:
    """A locally administered address, as ``VZMACAddress.randomLocallyAdministered()``."""
    first = random.randrange(256) & 0xFC | 0x02
    return ":".join(f"{byte:02x}" for byte in (first, *random.randbytes(5)))


def new_config(os_name: str = "linux", cpus: int = 4, memory_mib: int = 4096) -> dict[str, Any]:
    """The configuration of a new VM, with Tart's keys; memory in bytes."""
    return {
        "version": 1,
        "os": os_name,
        "arch": "arm64",
        "cpuCountMin": 1,
        "cpuCount": cpus,
        "memorySizeMin": 512 * 2**20,
        "memorySize": memory_mib * 2**20,
        "macAddress": new_mac(),
        "display": {"width": 1024, "height": 768},
        "diskFormat": "raw",
    }
