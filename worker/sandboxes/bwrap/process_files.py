"""What Linux says of a process in ``/proc/<pid>/stat`` (proc_pid_stat(5))."""

from __future__ import annotations

_FIRST = 3
"""Of the fields behind the name, which may hold anything and stands before the last parenthesis."""
_TIMES = slice(14 - _FIRST, 18 - _FIRST)
_BEGAN = 22 - _FIRST


def began_at(pid: int) -> int | None:
    """When it was started, in clock ticks since the host was; None when it is gone, or has ended."""
    fields = _fields(pid)
    return None if not fields or fields[0] == b"Z" else int(fields[_BEGAN])


def used_ticks(pid: int) -> int | None:
    """User and system time of it and of its children that it has waited for, in clock ticks; None when it is gone."""
    fields = _fields(pid)
    return sum(map(int, fields[_TIMES])) if fields else None


def _fields(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:  # it is gone
        return []
