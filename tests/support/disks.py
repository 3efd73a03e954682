"""A disk that is soon full: needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def fill(path: Path) -> None:
    """Write this file until there is no room left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@contextmanager
def small_disk(folder: Path, size_kib: int = 1024) -> Iterator[None]:
    """Put a file system of ``size_kib`` over ``folder``; it goes, with all that was written, at the end."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tatin-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
