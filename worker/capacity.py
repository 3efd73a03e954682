"""What a host can give: worked out from psutil and the settings, nothing counted.

What is in use is never kept here: the store's claim sums the leases, and ``worker.recovery`` knows the sandboxes that
are not yet verified gone (I4).
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import psutil

from tatin_jobs.models import Offer
from tatin_jobs.settings import Settings

MAX_DEFAULT_SLOTS = 64
_KEEP_MIB = 2048
"""Memory that is never offered: the host's own system and the worker need it."""
_ARCH = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}


def host_os() -> str:
    """``linux`` or ``macos``, as written in ``requires.os``."""
    system = platform.system()
    return "macos" if system == "Darwin" else system.lower()


def host_arch() -> str:
    """``amd64`` or ``arm64``, as written in ``requires.arch``."""
    machine = platform.machine()
    return _ARCH.get(machine, machine.lower())


def host_memory_mib() -> int:
    """All that this host has."""
    return psutil.virtual_memory().total // 2**20


def free_disk_mib(path: Path) -> int:
    """What is free on the disk that holds ``path``, for this user."""
    return shutil.disk_usage(path).free // 2**20


def below_floor(settings: Settings) -> str | None:
    """That so little disk is free in the home that no job starts, in words; None when there is enough."""
    free = free_disk_mib(settings.home)
    if free >= settings.disk_floor_mib:
        return None
    return f"{free} MiB of disk are free, below the floor of {settings.disk_floor_mib} MiB (disk_floor_mib)"


def offer_of(settings: Settings, sandbox_kind: str) -> Offer:
    """What this host offers in all.

    Twice its logical CPUs (agents mostly wait for the model), its memory less the larger of 2 GiB and a quarter, the
    free disk above the floor, unless the settings say otherwise.
    """
    total_mib = host_memory_mib()
    cpus = settings.cpus or 2 * (psutil.cpu_count() or 1)
    memory = settings.memory_mib or max(256, total_mib - max(_KEEP_MIB, total_mib // 4))
    tags = {*settings.tags, f"os:{host_os()}", f"arch:{host_arch()}", f"sandbox:{sandbox_kind}"}
    return Offer(
        cpus=cpus,
        memory_mib=memory,
        disk_mib=max(0, free_disk_mib(settings.home) - settings.disk_floor_mib),
        slots=settings.slots or min(cpus, MAX_DEFAULT_SLOTS),
        tags=tuple(sorted(tags)),
    )
