"""Packets to a warden, in order: those for which the socket has no room while the warden is busy wait here."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress


class Sender:
    """``failed``: told the number of a packet that had to wait and could not be sent, and why."""

    def __init__(self, link: socket.socket, failed: Callable[[int, OSError], None]) -> None:
        self._link = link
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[int, bytes, list[int]]] = deque()

    def send(self, number: int, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send it now or later; the descriptors may be closed after that. Raises OSError: it cannot be sent."""
        if not self._waiting:
            with suppress(BlockingIOError):
                socket.send_fds(self._link, [data], fds)
                return
        self._waiting.append((number, data, copies_of(fds)))
        self._loop.add_writer(self._link.fileno(), self._send_more)

    def close(self) -> None:
        """Send no more; before the socket is closed."""
        self._loop.remove_writer(self._link.fileno())
        while self._waiting:
            close_all(self._waiting.popleft()[2])

    def _send_more(self) -> None:
        while self._waiting:
            number, data, fds = self._waiting[0]
            try:
                socket.send_fds(self._link, [data], fds)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(number, error)
            close_all(fds)
            self._waiting.popleft()
        self._loop.remove_writer(self._link.fileno())


def copies_of(fds: Sequence[int]) -> list[int]:
    """All of them, or none is made. Raises OSError."""
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        close_all(made)
        raise
    return made


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
