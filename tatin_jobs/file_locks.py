"""Locks between processes, each on a file that is there for it; they end with their process, whatever happens."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def lock_at_once(file: int | IO[str]) -> bool:
    """Take the lock of an open file. False: somebody else has it; a shared lock of ours is given up in passing."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def only_one(path: Path, what: str, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of this file; a second one waits, and says ``what`` it waits for."""
    with path.open("a") as file:
        if not lock_at_once(file):
            report(f"another {what} is under way; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
