"""Reads a tar as hostile bytes: block by block, with nothing kept but the header at hand (A07-A09, A13).

Of the standard library's ``tarfile`` nothing is used: it keeps whole name records and every member in memory, and its
extraction was escaped more than once. What is understood: ustar, GNU long names, pax ``path`` and ``size``. Several
tars one behind the other are read as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

BLOCK = 512
MAX_PAX_BYTES = 64 * 1024
MAX_LONG_NAME_BYTES = 4096
_MAX_SIZE = 2**60
_NO_DATA = frozenset(b"123456")
"""Links, devices, folders and FIFOs: a size in their header means nothing."""


class Corrupt(Exception):
    """The stream is no tar from here on; what was read before stands."""


class Truncated(Corrupt):
    """The stream ended in the middle."""


class TooLong(Corrupt):
    """More came than is read of one stream; what was read before stands."""


class Kind(Enum):
    """What a member is to us."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


@dataclass(frozen=True)
class Member:
    """One header. ``name`` is raw. ``problem``: why it cannot be taken, whatever it is (its data can still be read)."""

    name: bytes
    kind: Kind
    size: int
    executable: bool
    problem: str | None = None


_TYPE_NAMES = {
    ord("1"): "a hard link",
    ord("2"): "a symbolic link",
    ord("3"): "a device",
    ord("4"): "a device",
    ord("6"): "a FIFO",
    ord("7"): "a contiguous file",
    ord("S"): "a sparse file",
}


class TarStream:
    """Iterates over the members; the data of each must be read or is skipped by the next step.

    ``read(n)`` gives up to n bytes, ``b""`` at the end. Over ``limit_bytes`` nothing is read, whether it was wanted or
    skipped: a stream without an end has one here.
    """

    def __init__(self, read: Callable[[int], bytes], limit_bytes: int) -> None:
        self._read = read
        self._limit_bytes = limit_bytes
        self._left = 0
        self._padding = 0
        self._bytes_read = 0

    def members(self) -> Iterator[Member]:
        """Every member up to the end of the stream.

        Raises:
            Corrupt: from here on it is no tar (a header's sum is wrong).
            Truncated: it ended within a member.
            TooLong: the limit was reached.
        """
        long_name: bytes | None = None
        pax: dict[bytes, bytes] = {}
        problem: str | None = None
        while (header := self._next_header()) is not None:
            kind, size = header[156], _number(header[124:136])
            if kind in b"LKxg":
                data, oversized = self._record(size, MAX_PAX_BYTES if kind in b"xg" else MAX_LONG_NAME_BYTES)
                if kind == ord("L"):
                    long_name = data.split(b"\0", 1)[0]
                elif kind == ord("x"):
                    pax = _parse_pax(data) if not oversized else {}
                if oversized and kind in b"Lx":
                    problem = "a name record that is too long"
                continue
            member = self._member(header, kind, size, long_name, pax, problem)
            if self._bytes_read + member.size > self._limit_bytes:
                self._count(member.size)  # not read first, only to be told so
            yield member
            self._skip_rest()
            long_name, pax, problem = None, {}, None

    def data(self, limit: int = 2**18) -> bytes:
        """The next bytes of the member at hand; ``b""`` when it is read whole.

        Raises:
            Truncated: the stream ended before.
        """
        if self._left == 0:
            return b""
        chunk = self._some(min(limit, self._left))
        self._left -= len(chunk)
        return chunk

    def _member(
        self, header: bytes, kind: int, size: int, long_name: bytes | None, pax: dict[bytes, bytes], problem: str | None
    ) -> Member:
        name = pax.get(b"path") or long_name or _header_name(header)
        if b"size" in pax:
            size = _decimal(pax[b"size"])
        if any(key.startswith(b"GNU.sparse") for key in pax):
            problem = problem or "a sparse file"
        self._left = 0 if kind in _NO_DATA else size
        self._padding = -self._left % BLOCK
        if kind in b"0\0" and name.endswith(b"/"):
            kind = ord("5")  # how tars before POSIX say folder
        what = Kind.FILE if kind in b"0\0" else Kind.FOLDER if kind == ord("5") else Kind.OTHER
        if what is Kind.OTHER:
            problem = problem or _TYPE_NAMES.get(kind, "of a kind that is not taken")
        if b"\0" in name:
            problem = problem or "a NUL in its name"
        return Member(name, what, self._left, bool(_number(header[100:108]) & 0o100), problem)

    def _next_header(self) -> bytes | None:
        """The next header; None at the end. Blocks of zeros end one tar, and another may follow."""
        while True:
            block = self._read(BLOCK)
            if not block:
                return None
            while len(block) < BLOCK:
                more = self._read(BLOCK - len(block))
                if not more:
                    raise Truncated("the stream ended in a header")
                block += more
            self._count(BLOCK)
            if block.count(0) != BLOCK:
                _check_sum(block)
                return block

    def _record(self, size: int, limit: int) -> tuple[bytes, bool]:
        """(data, whether it was too long to be kept)"""
        self._left, self._padding = size, -size % BLOCK
        kept = bytearray()
        while size <= limit and (chunk := self.data()):
            kept += chunk
        self._skip_rest()
        return bytes(kept), size > limit

    def _skip_rest(self) -> None:
        self._left += self._padding
        self._padding = 0
        while self.data():
            pass

    def _some(self, limit: int) -> bytes:
        chunk = self._read(limit)
        if not chunk:
            raise Truncated("the stream ended in a file")
        self._count(len(chunk))
        return chunk

    def _count(self, size: int) -> None:
        self._bytes_read += size
        if self._bytes_read > self._limit_bytes:
            raise TooLong(f"over the limit of {self._limit_bytes} bytes to be read")


def _header_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _check_sum(header: bytes) -> None:
    wanted = _number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 32 != wanted:
        raise Corrupt("a header's sum is wrong")


def _number(field: bytes) -> int:
    """Octal digits, or base 256 when the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            raise Corrupt("a number in a header is none")
        value = int(digits, 8) if digits else 0
    if value > _MAX_SIZE:
        raise Corrupt("a number in a header is beyond all bounds")
    return value


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise Corrupt("a size in a pax record is none")
    return int(text)


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """``length key=value\\n`` records; at most 64 KiB of them come here."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        if space < 0:
            raise Corrupt("a pax record is none")
        length = _decimal(data[at:space])
        record = data[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if length <= space - at + 1 or not equals or not value.endswith(b"\n") or at + length > len(data):
            raise Corrupt("a pax record is none")
        found[key] = value[:-1]
        at += length
    return found
