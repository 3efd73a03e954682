"""What Linux says of a process in ``/proc/<pid>``, and how such files are read (proc_pid_stat(5))."""

from __future__ import annotations

import os

_MOST = 65_536
_PART = 2048
"""Of a list the kernel gives no more at once than a page holds (4 KiB or more) of whole lines."""
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


def children(pid: int) -> list[int]:
    """What any of its threads has started and not waited for; none when it is gone."""
    files = [f"/proc/{pid}/task/{thread}/children" for thread in threads(pid)]
    return [int(each) for file in files for each in read_file(file).split()]


def threads(pid: int) -> list[str]:
    """The numbers of its threads; none when it is gone."""
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def read_file(path: str) -> bytes:
    """A short file that the kernel makes as it is read: no need for what Python's files do. Empty where there is none.

    Each costs the worker several times what it is for, and a small job reads twenty.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    parts = []
    try:
        while True:
            parts.append(os.read(fd, _MOST))
            if len(parts[-1]) < _PART:
                return b"".join(parts)
    except OSError:  # of a process that ended meanwhile
        return b""
    finally:
        os.close(fd)


def _fields(pid: int) -> list[bytes]:
    return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
