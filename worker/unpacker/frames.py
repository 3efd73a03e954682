"""How the worker and its unpacking child speak: pieces with their length in front; one of length 0 ends a stream."""

from __future__ import annotations

import struct
from collections.abc import Callable

_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size
MAX_FRAME_BYTES = 2**20
END = _LENGTH.pack(0)


def frame(data: bytes) -> bytes:
    """One piece with its length; ``data`` must not be empty."""
    return _LENGTH.pack(len(data)) + data


def length_of(header: bytes) -> int:
    """The length that a header tells."""
    length: int = _LENGTH.unpack(header)[0]
    return length


class FrameReader:
    """The pieces of one stream, read as if they were a file. ``read_exactly(n)`` gives n bytes, fewer at the end."""

    def __init__(self, read_exactly: Callable[[int], bytes]) -> None:
        self._read_exactly = read_exactly
        self._left = 0
        self._ended = False

    def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes; ``b""`` at the end of the stream, also when the other side is gone."""
        if self._left == 0 and not self._ended:
            header = self._read_exactly(HEADER_BYTES)
            self._left = length_of(header) if len(header) == HEADER_BYTES else 0
            self._ended = self._left == 0
        if self._ended:
            return b""
        data = self._read_exactly(min(limit, self._left))
        self._left -= len(data)
        self._ended = not data
        return data

    def drain(self) -> None:
        """Read on to the end of the stream, for nothing."""
        while self.read(MAX_FRAME_BYTES):
            pass
