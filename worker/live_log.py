"""What a command of an attempt prints, on its two ways out: whole into a file, and live through the outbox.

The guest may print without end (a pipe carries 57 GB a minute). The file is cut at its limit; the live stream gets
what a person could read, with a notice for what was left out. Neither holds more than a MiB in memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from worker.agents.base import AgentEvent
from worker.events import record_of
from worker.outbox import Outbox, Piece
from worker.redaction import RedactedStream, Redactor

LIVE_BYTES_PER_SECOND = 256 * 1024
LIVE_BURST_BYTES = 1024 * 1024
_PIECE = 16 * 1024
Stream = Literal["stdout", "stderr"]


class LiveLog:
    """The log of one command. A context manager; the file is appended to, and made when it is entered.

    ``again``: an earlier worker began it, and all of the output comes once more: the file is written anew, and as many
    bytes as it had are not shown live a second time.
    """

    def __init__(
        self, path: Path, outbox: Outbox, *, limit_bytes: int, again: bool = False, redactor: Redactor | None = None
    ) -> None:
        self._redactor = redactor or Redactor()
        self._clean: dict[Stream, RedactedStream] = {
            "stdout": self._redactor.stream(),
            "stderr": self._redactor.stream(),
        }
        self._shows_events: set[Stream] = set()
        self._path = path
        self._outbox = outbox
        self._limit = limit_bytes
        self._written = 0
        self._again = again
        self._shown_before = 0
        self._allowance = float(LIVE_BURST_BYTES)
        self._refilled = time.monotonic()
        self._left_out = 0
        self.cut = False
        """The file is shorter than what was printed."""

    def __enter__(self) -> LiveLog:
        if self._again and self._path.exists():
            self._shown_before = self._path.stat().st_size
            self._path.unlink()
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        for stream, clean in self._clean.items():
            with suppress(OSError):  # a full disk was told of already
                self._take(stream, clean.close(), () if stream in self._shows_events else None)
        self._say_left_out()
        self._file.close()

    def output(self, stream: Stream, data: bytes, events: Sequence[AgentEvent] | None = None) -> None:
        """Bytes of the guest, as they came, but for what is known as a secret of this host. With ``events``, which were
        read from them, those are shown live: a stream for programs repeats itself, and is kept in the file only.

        Raises:
            OSError: the host's disk is full.
        """
        if events is not None:
            self._shows_events.add(stream)
        self._take(stream, self._clean[stream].feed(data), events)

    def _take(self, stream: Stream, data: bytes, events: Sequence[AgentEvent] | None) -> None:
        room = self._limit - self._written
        if room > 0:
            self._keep(data[:room])
        if len(data) > room:
            self.say_cut()
        self._show(stream, data, events)

    def say_cut(self) -> None:
        """Tell people, once, that the file is shorter than what was printed."""
        if not self.cut:
            self.cut = True
            notice = f"[{self._path.name} is cut at {self._limit // 2**20} MiB; the command itself was not held up]\n"
            self._outbox.post(("tatin", notice.encode()))

    def _keep(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self._file.write(rest)  # a disk that fills up takes a part, and raises with the next
            rest = rest[written:]
            self._written += written

    def _show(self, stream: Stream, data: bytes, events: Sequence[AgentEvent] | None) -> None:
        known = min(len(data), self._shown_before)
        self._shown_before -= known
        if events is None:
            data = data[known:]
            pieces: list[Piece] = [(stream, data[start : start + _PIECE]) for start in range(0, len(data), _PIECE)]
        else:
            pieces = [] if known else [("event", self._record(event)) for event in _seen(events)]
        if not pieces:
            return
        size = sum(len(piece) for _, piece in pieces)
        now = time.monotonic()
        earned = (now - self._refilled) * LIVE_BYTES_PER_SECOND
        self._allowance, self._refilled = min(LIVE_BURST_BYTES, self._allowance + earned), now
        if self._allowance < size:
            self._left_out += size
            return
        if pieces:
            self._say_left_out()
        self._allowance -= size
        for piece in pieces:
            self._outbox.post(piece)

    def _record(self, event: AgentEvent) -> bytes:
        return json.dumps(self._redactor.tree(record_of(event))).encode() + b"\n"

    def _say_left_out(self) -> None:
        if self._left_out:
            notice = f"[{self._left_out} bytes came too fast to show live; {self._path.name} has them]\n"
            self._outbox.post(("tatin", notice.encode()))
            self._left_out = 0


def _seen(events: Sequence[AgentEvent]) -> Iterator[AgentEvent]:
    """Those that a person sees."""
    return (event for event in events if event.kind != "usage")
