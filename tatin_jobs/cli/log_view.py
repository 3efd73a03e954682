"""A job's live log on its way to a person: pieces from the store, cleaned, ours told apart from the guest's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tatin_jobs.cli.outage import Outage
from tatin_jobs.cli.output import write_text
from tatin_jobs.cli.readable import EventStream, event_lines
from tatin_jobs.models import LogChunk
from tatin_jobs.states import JobState
from tatin_jobs.store import Store
from tatin_jobs.terminal import LogCleaner, clean

if TYPE_CHECKING:
    from rich.console import Console

LOOK_SECONDS = 0.5
"""How long a wait for log pieces lasts before the job's state is looked at again. Pieces end it at once."""


def follow_log(
    store: Store, job_id: str, *, follow: bool, stop: threading.Event | None = None, block_seconds: float = LOOK_SECONDS
) -> Iterator[list[LogChunk]]:
    """What is kept of the live log, in pieces; with ``follow`` until the job is finished, across its attempts.

    While nothing comes, an empty list is given after each ``block_seconds``. Ends early when ``stop`` is set.
    """
    cursor = "0"
    outage = Outage(lambda: not follow or bool(stop and stop.is_set()))

    def look() -> tuple[bool, list[LogChunk]]:
        # Asked before reading: what was written before the end is then read before this ends.
        over = not follow or store.job(job_id).state is JobState.FINISHED
        return over, store.read_log(job_id, cursor, 0 if over else block_seconds)

    while not (stop and stop.is_set()):
        over, chunks = outage.ask(look)
        if chunks:
            cursor = chunks[-1].cursor
        elif over:
            return
        yield chunks


class LogPrinter:
    """Prints pieces as they come. The guest's text goes to stdout as it is, cleaned; events as lines; our own lines are
    dim and begin with ``tatin:``. A new attempt is announced by such a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._cleaners: dict[str, LogCleaner] = {}
        self._events = EventStream()
        self._attempt: int | None = None
        self._in_line = False

    def show(self, chunk: LogChunk) -> None:
        """One piece."""
        if self._attempt is not None and chunk.attempt != self._attempt:
            self.close()
            self.ours(f"attempt {chunk.attempt}")
        self._attempt = chunk.attempt
        if chunk.stream == "tatin":
            for line in chunk.data.decode("utf-8", "replace").splitlines():
                self.ours(line)
        elif chunk.stream == "event":
            for event in self._events.feed(chunk.data):
                self.event(event)
        else:
            self._write(self._cleaners.setdefault(chunk.stream, LogCleaner()).feed(chunk.data))

    def event(self, event: dict[str, Any]) -> None:
        """One event of the agent."""
        for line, style in event_lines(event):
            self._line(line, style)

    def ours(self, line: str) -> None:
        """A line of our own."""
        self._line(f"tatin: {clean(line)}", "dim")

    def _line(self, line: str, style: str) -> None:
        from rich.text import Text

        if self._in_line:
            self._write("\n")
        self._console.print(Text(line, style=style), soft_wrap=True)

    def close(self) -> None:
        """Print what was held back, and end the line."""
        for cleaner in self._cleaners.values():
            self._write(cleaner.close())
        if self._in_line:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            write_text(text)
            self._in_line = not text.endswith("\n")


class LineSplitter:
    """Cuts cleaned log text into whole lines, for a view that several jobs share."""

    MAX_CHARACTERS = 2000
    """A longer line is cut into several: an agent may print 500 MB without a newline."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._cleaner = LogCleaner()
        self._rest = ""

    def feed(self, data: bytes) -> None:
        """Emit every line that this completes."""
        self._take(self._cleaner.feed(data))

    def close(self) -> None:
        """Emit what is left."""
        self._take(self._cleaner.close())
        if self._rest:
            self._emit(self._rest)
        self._rest = ""

    def _take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            for start in range(0, len(line) or 1, self.MAX_CHARACTERS):
                self._emit(line[start : start + self.MAX_CHARACTERS])
        while len(self._rest) > self.MAX_CHARACTERS:
            self._emit(self._rest[: self.MAX_CHARACTERS])
            self._rest = self._rest[self.MAX_CHARACTERS :]
