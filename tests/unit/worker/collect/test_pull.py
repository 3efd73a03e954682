"""The stream out of a guest, over a process that is none."""

from __future__ import annotations

from typing import Literal

from tatin_jobs.errors import SandboxError
from worker.collect.pull import _Stream
from worker.sandboxes.base import GuestProcess


class Talker(GuestProcess):
    """Always has bytes at hand, up to ``reads`` of them; then it ends, or its sandbox dies."""

    def __init__(self, reads: int, *, dies: bool = False, stderr: bytes = b"", status: int = 0) -> None:
        self._left, self._dies, self._stderr, self._status = reads, dies, stderr, status

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def kill(self) -> None: ...

    async def read(self, stream: Literal["stdout", "stderr"], limit: int = 65_536) -> bytes:
        if stream == "stderr":
            said, self._stderr = self._stderr, b""
            return said
        self._left -= 1
        if self._left < 0 and self._dies:
            raise SandboxError("It died.")
        return b"x" if self._left >= 0 else b""

    async def wait(self) -> int:
        return self._status


async def read_all(stream: _Stream) -> int:
    return sum([len(data) async for data in stream.data()])


async def test_a_stream_that_never_waits_meets_its_limit_of_time() -> None:
    """F57: a timeout alone is only looked at when a read waits"""
    stream = _Stream(Talker(20_000), timeout_seconds=0)
    assert await read_all(stream) == 0
    assert stream.cut == "collecting took longer than 0 s"
    assert await stream.ending() is None


async def test_a_sandbox_that_dies_ends_the_stream_with_what_came() -> None:
    """F53"""
    stream = _Stream(Talker(3, dies=True), timeout_seconds=60)
    assert await read_all(stream) == 3
    assert stream.cut == "the sandbox died: It died."


async def test_what_the_guests_side_complains_of_is_told_harmlessly() -> None:
    stream = _Stream(Talker(1, stderr=b"tar: ./a\x1b[31m: Cannot open\nmore\n", status=2), timeout_seconds=60)
    assert await read_all(stream) == 1
    told = await stream.ending()
    assert told
    assert told.isprintable()
    assert told.endswith("Cannot open")


async def test_a_stream_that_ended_well_has_nothing_to_tell() -> None:
    stream = _Stream(Talker(1, stderr=b"tar: a note\n"), timeout_seconds=60)
    assert await read_all(stream) == 1
    assert (stream.cut, await stream.ending()) == (None, None)
