"""What runs in a guest, seen from the host: by what the kernel says, for a guest gives its processes any name."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil


def inside(warden: int) -> list[psutil.Process]:
    """The processes below ``warden`` that are in the guest's namespace of process numbers, but for its first, which
    must outlive the others. Raises psutil.Error when the warden is gone."""
    return [each for each in psutil.Process(warden).children(recursive=True) if _number_inside(each.pid) > 1]


def kill_inside(warden: int) -> None:
    """SIGKILL to each of them."""
    with suppress(psutil.Error):
        kill_each(inside(warden))


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and to all below it."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        kill_each([*process.children(recursive=True), process])


def kill_each(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to those that are still there."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _number_inside(pid: int) -> int:
    """The number that the process has in the innermost namespace; 0 where it is in no other than ours, or gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return int(numbers[-1]) if len(numbers) > 1 else 0
    return 0
