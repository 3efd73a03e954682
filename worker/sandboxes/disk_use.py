"""How much disk a folder takes that a guest writes to at the same time: by directory descriptor, through no link."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_DEPTH = 200
"""Each level takes a descriptor."""
_one_at_a_time = threading.Lock()


@dataclass
class DiskUse:
    """``too_deep``: there are folders under ``MAX_DEPTH`` levels of them, which were not looked into."""

    size_bytes: int = 0
    files: int = 0
    too_deep: bool = False


def disk_use(paths: list[str], most: DiskUse) -> DiskUse:
    """Blocks that are taken, and files and folders, under ``paths`` together; given up when over ``most``.

    What vanishes meanwhile is not counted, and a folder that cannot be opened counts as empty. A file with two names
    counts twice: it would have to be remembered, and a guest can make millions.
    """
    use = DiskUse()
    with _one_at_a_time:
        for path in paths:
            with suppress(OSError):
                _add(path, None, use, most, 0)
    return use


def _add(name: str, parent: int | None, use: DiskUse, most: DiskUse, depth: int) -> None:
    if depth > MAX_DEPTH:
        use.too_deep = True
        return
    folder = os.open(name, _OPEN, dir_fd=parent)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if use.too_deep or use.size_bytes > most.size_bytes or use.files > most.files:
                    return
                with suppress(OSError):
                    found = os.lstat(entry.name, dir_fd=folder)
                    use.files += 1
                    use.size_bytes += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        _add(entry.name, folder, use, most, depth + 1)
    finally:
        os.close(folder)
