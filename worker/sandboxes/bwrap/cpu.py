"""CPU time of a guest: what its processes have used, and those of them that are gone."""

from __future__ import annotations

import os
from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float | None:
    """Of process ``pid`` and all below it, with the children that they have waited for; None when it is gone."""
    ticks = [_ticks(each) for each in _tree(pid)]
    known = [value for value in ticks if value is not None]
    return sum(known) / _TICKS if known else None


def _tree(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        yield each
        try:
            for thread in os.listdir(f"/proc/{each}/task"):
                waiting += map(int, _read(f"/proc/{each}/task/{thread}/children").split())
        except OSError:  # it ended meanwhile
            continue


def _ticks(pid: int) -> int | None:
    """User and system time of it and of its waited-for children: fields 14 to 17 of ``/proc/<pid>/stat``. The name of
    the program, which may hold anything, stands before the last parenthesis."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15]))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
