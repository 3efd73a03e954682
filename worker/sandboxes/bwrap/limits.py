"""Memory and process limits of one bwrap guest: a cgroup (v2, else v1) where one can be made, else a watcher.

Never RLIMIT_AS: OpenCode dies under 8 GiB of it without using a tenth.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import psutil

MAX_PROCESSES = 2048
WATCH_SECONDS = 0.5
_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
_V1_PIDS = Path("/sys/fs/cgroup/pids")


def method() -> str:
    """``cgroup2``, ``cgroup1`` or ``watcher``: what bounds a guest's memory on this host."""
    if (_V2 / "cgroup.subtree_control").exists() and os.access(_V2, os.W_OK):
        return "cgroup2" if "memory" in (_V2 / "cgroup.subtree_control").read_text() else "watcher"
    return "cgroup1" if os.access(_V1, os.W_OK) and (_V1 / "memory.limit_in_bytes").exists() else "watcher"


def _roots() -> list[Path]:
    """The folders in which a sandbox's cgroups are made."""
    kind = method()
    if kind == "cgroup1":
        return [_V1, *([_V1_PIDS] if os.access(_V1_PIDS, os.W_OK) else [])]
    return [_V2] if kind == "cgroup2" else []


class Limits:
    """The limits of one sandbox; ``folders`` are its cgroups, empty where a watcher must do."""

    def __init__(self, name: str, memory_mib: int) -> None:
        self._bytes = memory_mib * 2**20
        self._kills = 0
        self.folders = [root / name for root in _roots()]

    def prepare(self) -> None:
        """Make the cgroups with their limits. Raises OSError."""
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
            if (folder / "memory.limit_in_bytes").exists():
                (folder / "memory.limit_in_bytes").write_text(str(self._bytes))
                with suppress(OSError):  # without swap accounting there is no such file
                    (folder / "memory.memsw.limit_in_bytes").write_text(str(self._bytes))
            if (folder / "memory.max").exists():
                (folder / "memory.max").write_text(str(self._bytes))
                with suppress(OSError):
                    (folder / "memory.swap.max").write_text("0")
            if (folder / "pids.max").exists():
                (folder / "pids.max").write_text(str(MAX_PROCESSES))

    async def watch(self, pid: int) -> None:
        """Where there is no cgroup: add up what the guest of the bwrap process ``pid`` uses, and when that is too much,
        kill what uses most of it, as the kernel would."""
        if self.folders:
            return
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if await asyncio.to_thread(_kill_largest, pid, self._bytes):
                self._kills += 1

    def oom_kills(self) -> int:
        """How often something was killed for memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for line in _lines(folder / name):
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return self._kills

    def peak_mib(self) -> int | None:
        """The most memory that was used; None where nobody counted."""
        for folder in self.folders:
            for name in ("memory.peak", "memory.max_usage_in_bytes"):
                for line in _lines(folder / name):
                    return int(line) // 2**20
        return None

    def kill_and_remove(self) -> None:
        """Kill what is still in the cgroups and remove them; safe on none. Raises OSError when one stays."""
        for folder in self.folders:
            for line in _lines(folder / "cgroup.procs"):
                with suppress(OSError):
                    os.kill(int(line), 9)
        for folder in self.folders:
            with suppress(FileNotFoundError):
                folder.rmdir()


def _kill_largest(pid: int, limit_bytes: int) -> bool:
    """Kill the largest process of the guest if all of them together are over the limit; whether one was killed."""
    sizes: dict[psutil.Process, int] = {}
    with suppress(psutil.Error):
        first = psutil.Process(pid).children()  # the guest's first process, which must outlive the others
        for process in [child for init in first for child in init.children(recursive=True)]:
            with suppress(psutil.Error):
                sizes[process] = process.memory_full_info().pss
    if sum(sizes.values()) <= limit_bytes:
        return False
    with suppress(psutil.Error):
        max(sizes, key=sizes.__getitem__).kill()
    return True


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split("\n")[:-1]
    except OSError:
        return []
