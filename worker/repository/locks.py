"""A lock between processes: a mirror is written by one git at a time, also when two workers' homes are one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tatin_jobs.file_locks import lock_at_once

_POLL_SECONDS = 0.05


@asynccontextmanager
async def file_lock(path: Path) -> AsyncIterator[None]:
    """Hold ``path``'s lock; it ends with the process whatever happens. Waits as long as it takes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not lock_at_once(fd):  # noqa: ASYNC110 - another process lets go of it
            await asyncio.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)
