"""Limits of one bwrap guest: memory, processes and CPU by a cgroup (v2, else v1) where one can be made; memory and
processes else by a watcher; disk and the number of files by a watcher always. Each file is bounded by its size, too.

Never RLIMIT_AS: OpenCode dies under 8 GiB of it without using a tenth.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from tatin_jobs.errors import SandboxError
from worker.sandboxes.bwrap.inside import inside, kill_each
from worker.sandboxes.bwrap.process_files import read_file, threads
from worker.sandboxes.disk_use import MAX_DEPTH, DiskUse, disk_use

MAX_PROCESSES = 2048
WATCH_SECONDS = 0.5
_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
_V1_PIDS = Path("/sys/fs/cgroup/pids")
_V1_CPU = Path("/sys/fs/cgroup/cpu")
_CPU_PERIOD = 100_000
THROTTLED_SECONDS = 5.0
"""Less time in which a guest waited for its share of CPU is not worth a word."""
MAX_FILES = 2_000_000
DISK_SECONDS = 5.0
DISK_PAUSES = 20
"""The watcher rests so much longer than it looked, so that it takes a twentieth of one CPU at most."""


@cache
def method() -> str:
    """``cgroup2``, ``cgroup1`` or ``watcher``: what bounds a guest's memory on this host."""
    if (_V2 / "cgroup.subtree_control").exists() and os.access(_V2, os.W_OK):
        return "cgroup2" if "memory" in (_V2 / "cgroup.subtree_control").read_text() else "watcher"
    return "cgroup1" if os.access(_V1, os.W_OK) and (_V1 / "memory.limit_in_bytes").exists() else "watcher"


@dataclass(frozen=True)
class _Names:
    """Of the files in a cgroup, and the line of ``cpu.stat`` for the time in which it was throttled."""

    memory: str
    swap: str
    oom_kills: str
    peak: str
    throttled: str
    throttled_unit: float


_NAMES = {
    "cgroup1": _Names(
        memory="memory.limit_in_bytes",
        swap="memory.memsw.limit_in_bytes",
        oom_kills="memory.oom_control",
        peak="memory.max_usage_in_bytes",
        throttled="throttled_time ",
        throttled_unit=1e9,
    ),
    "cgroup2": _Names(
        memory="memory.max",
        swap="memory.swap.max",
        oom_kills="memory.events",
        peak="memory.peak",
        throttled="throttled_usec ",
        throttled_unit=1e6,
    ),
}


class Limits:
    """The limits of one sandbox; ``folders`` are its cgroups, empty where a watcher must do."""

    def __init__(self, name: str, memory_mib: int, cpus: int = 1, disk_mib: int = 0) -> None:
        self._bytes = memory_mib * 2**20
        self._cpus = cpus
        self.disk_mib = disk_mib
        self._kills = 0
        self._seen: set[str] = set()
        self.full: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Its result is a sentence for people."""
        self._method = method()
        self._memory = self._processes = self._cpu = ""
        if self._method == "cgroup2":
            self._memory = self._processes = self._cpu = f"{_V2}/{name}"
        elif self._method == "cgroup1":
            self._memory = f"{_V1}/{name}"
            self._processes, self._cpu = (
                f"{root}/{name}" if os.access(root, os.W_OK) else "" for root in (_V1_PIDS, _V1_CPU)
            )
        self.folders = list(dict.fromkeys(filter(None, (self._memory, self._processes, self._cpu))))

    @property
    def joins(self) -> list[str]:
        """The files by which a process of one thread puts itself ("0") into the cgroups. Of v1 the one for threads, for
        which the kernel need not wait until nobody on the host forks (some 4 ms, `cgroup_procs_write_start`)."""
        name = "tasks" if self._method == "cgroup1" else "cgroup.procs"
        return [f"{folder}/{name}" for folder in self.folders]

    def prepare(self) -> None:
        """Make the cgroups with their limits. Raises OSError."""
        if not self.folders:
            return
        for folder in self.folders:
            with suppress(FileExistsError):
                os.mkdir(folder)
        names = _NAMES[self._method]
        _write(self._memory, names.memory, str(self._bytes))
        with suppress(OSError):  # without swap accounting there is no such file
            _write(self._memory, names.swap, "0" if self._method == "cgroup2" else str(self._bytes))
        _write(self._processes, "pids.max", str(MAX_PROCESSES))
        if self._method == "cgroup2":
            _write(self._cpu, "cpu.max", f"{self._cpus * _CPU_PERIOD} {_CPU_PERIOD}")
        else:
            _write(self._cpu, "cpu.cfs_period_us", str(_CPU_PERIOD))
            _write(self._cpu, "cpu.cfs_quota_us", str(self._cpus * _CPU_PERIOD))

    async def watch(self, warden: int) -> None:
        """Where there is no cgroup: add up what the guest of the process ``warden`` uses, and when that is too much,
        kill what uses most of it, as the kernel would."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if await asyncio.to_thread(_kill_largest, warden, self._bytes):
                self._kills += 1
            if await asyncio.to_thread(_kill_crowd, warden):
                self._seen.add("processes")

    async def watch_disk(self, paths: Sequence[Path], kill_all: Callable[[], Awaitable[None]]) -> None:
        """Look now and then at what the guest's folders take. Over the limit ``full`` says so, and then all that runs
        there is killed: what it left can be collected all the same."""
        most = DiskUse(self.disk_mib * 2**20, MAX_FILES)
        pause = DISK_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            use = await asyncio.to_thread(disk_use, [str(path) for path in paths], most)
            pause = max(DISK_SECONDS, DISK_PAUSES * (time.monotonic() - began))
            if use.size_bytes > most.size_bytes:
                self._seen.add("disk")
                seen = f"The sandbox used up its {self.disk_mib} MiB of disk; ask for more with resources.disk."
            elif use.files > most.files or use.too_deep:
                self._seen.add("files")
                seen = f"The sandbox made more than {MAX_FILES} files, or folders over {MAX_DEPTH} levels deep."
            else:
                continue
            self.full.set_result(seen)
            with suppress(SandboxError):  # it is dead already
                await kill_all()
            return

    def hit(self) -> set[str]:
        """Names of the limits that the guest came up against, but for memory: processes, cpu, disk, files."""
        found = set(self._seen)
        if not self.folders:
            return found
        if any(line.startswith("max ") and line != "max 0" for line in _lines(self._processes, "pids.events")):
            found.add("processes")
        names = _NAMES[self._method]
        for line in _lines(self._cpu, "cpu.stat"):
            if line.startswith(names.throttled) and int(line.split()[1]) / names.throttled_unit > THROTTLED_SECONDS:
                found.add("cpu")
        return found

    def oom_kills(self) -> int:
        """How often something was killed for memory."""
        if self.folders:
            for line in _lines(self._memory, _NAMES[self._method].oom_kills):
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return self._kills

    def peak_mib(self) -> int | None:
        """The most memory that was used; None where nobody counted."""
        if self.folders:
            for line in _lines(self._memory, _NAMES[self._method].peak):
                return int(line) // 2**20
        return None

    def kill_and_remove(self) -> None:
        """Remove the cgroups; safe on none. Raises OSError when one stays, and what is still in there was killed."""
        for folder in self.folders:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                _kill_members(folder)
                raise


def _kill_members(folder: str) -> None:
    for line in _lines(folder, "cgroup.procs"):
        with suppress(OSError):
            os.kill(int(line), 9)


def _kill_crowd(warden: int) -> bool:
    """Kill all processes of the guest but its first if these and their threads are too many; whether they were."""
    with suppress(psutil.Error):
        crowd = inside(warden)
        if sum(len(threads(process.pid)) for process in crowd) > MAX_PROCESSES:
            kill_each(crowd)
            return True
    return False


def _kill_largest(warden: int, limit_bytes: int) -> bool:
    """Kill the largest process of the guest if all of them together are over the limit; whether one was killed."""
    sizes: dict[psutil.Process, int] = {}
    with suppress(psutil.Error):
        sizes = {process: _memory_bytes(process.pid) for process in inside(warden)}
    if sum(sizes.values()) <= limit_bytes:
        return False
    with suppress(psutil.Error):
        max(sizes, key=sizes.__getitem__).kill()
    return True


def _memory_bytes(pid: int) -> int:
    """What a process has, and its part of what it shares. Any of its threads tells, but one that has ended, which the
    first may have while the others go on."""
    for thread in threads(pid):
        for line in read_file(f"/proc/{thread}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _write(folder: str, name: str, text: str) -> None:
    """Into a file of a cgroup; nothing where this host has no such limit or cgroup. Raises OSError."""
    if not folder:
        return
    with suppress(FileNotFoundError):
        fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _lines(folder: str, name: str) -> list[str]:
    """Of a file of a cgroup; none where this host has no such file or cgroup."""
    return read_file(f"{folder}/{name}").decode().split("\n")[:-1] if folder else []
