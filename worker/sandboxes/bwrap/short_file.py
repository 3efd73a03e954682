"""Memory that a program prints into, as a file that cannot become longer than it is."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class ShortFile:
    """Takes ``most`` bytes and one more, by which it is known that there were more; ``fd`` is for the program. Whoever
    writes on is refused (EPERM), and a piece that fits in part may be so as a whole (``shmem_write_begin`` of Linux).

    The guest may write there as long as any of it has the descriptor. What is written counts as memory of whoever
    writes it. Raises OSError when there are no descriptors left.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.fd = os.memfd_create("tatin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, most + 1)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    @property
    def is_over(self) -> bool:
        """Whether more was written than is wanted; that it was not does not say that nothing was refused."""
        return self._written() > self._most

    def read(self) -> bytes:
        """What was written, up to what is wanted: as far as the program's place in the file tells."""
        return os.pread(self.fd, min(self._written(), self._most), 0)

    def _written(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_CUR)


@contextmanager
def no_input() -> Iterator[int]:
    """What a program reads that is given nothing."""
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
