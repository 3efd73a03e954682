"""A lock between processes whose file goes when it is let go of, since each shape that ever was had one.

Who waits may have opened the file before it went, and would then hold what nobody else sees, beside the holder of a
new one. So only the lock of the file that is there counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from tatin_jobs.file_locks import lock_at_once


def take(path: Path) -> IO[str] | None:
    """The lock, held until ``let_go`` or the end of this process; None while somebody else has it."""
    file = path.open("a")
    if lock_at_once(file) and _is_there(file, path):
        return file
    file.close()
    return None


def let_go(lock: IO[str]) -> None:
    """What ``take`` gave; its file is removed while it is still held."""
    Path(lock.name).unlink(missing_ok=True)
    lock.close()


def _is_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
