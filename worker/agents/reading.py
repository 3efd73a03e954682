"""What the readers of tools that print JSON lines share. All of it comes from a guest: nothing here raises on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from tatin_jobs.states import Outcome, Reason
from worker.agents.base import AgentEvent, AgentReader, Verdict
from worker.agents.lines import JsonLines
from worker.agents.text import FINAL_CHARACTERS, clip, exit_text, last_line, unicode


@dataclass(frozen=True)
class Failure:
    """Whose fault it was, one sentence about it, and when a quota ends if that was said."""

    reason: Reason
    message: str
    reset_at: datetime | None = None


class JsonReader(AgentReader):
    """Reads one JSON object a line. A tool's reader says what a line means and what was wrong at the end."""

    title: str
    """The tool's name in sentences."""

    def __init__(self) -> None:
        self._lines = JsonLines()
        self._last_text = ""
        """The newest text of the model, as far as it may be the final answer."""
        self._finished = False

    @property
    def finished(self) -> bool:
        return self._finished

    def feed(self, data: bytes) -> list[AgentEvent]:
        return [event for line in self._lines.feed(data) for event in self._read(line)]

    def verdict(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Verdict:
        for line in self._lines.end():
            list(self._read(line))
        final_text = self._last_text or None
        failure = self._failure(exit_status, stderr_tail, changed)
        if failure is None:
            return Verdict(Outcome.SUCCEEDED, message=self._remark(), final_text=final_text)
        return Verdict(Outcome.FAILED, failure.reason, failure.message, final_text, failure.reset_at)

    @abstractmethod
    def _read(self, line: Mapping[str, Any]) -> Iterator[AgentEvent]:
        """The events of one line."""

    @abstractmethod
    def _failure(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Failure | None:
        """What was wrong with the run as a whole; None: it did its work."""

    def _remark(self) -> str:
        """What a person should know of a run that did its work; usually nothing."""
        return ""

    def _ended(self, exit_status: int, stderr_tail: bytes, otherwise: str) -> Failure:
        """A failure of the program itself: its exit status, or for 0 what it left undone."""
        seen = last_line(stderr_tail)
        said = exit_text(exit_status) if exit_status else f"exited with 0 but {otherwise}"
        return Failure(Reason.AGENT, f"{self.title} {said}" + (f": {seen}" if seen else "."))


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any, limit: int = 100) -> Iterator[Mapping[str, Any]]:
    """The objects of a list, at most ``limit``; none when it is no list."""
    if isinstance(value, list):
        yield from (item for item in value[:limit] if isinstance(item, dict))


def whole(value: Any) -> int | None:
    """``value`` if it is a whole number that can be a count, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else None


def status_of(value: Any) -> int | None:
    """``value`` if it is an HTTP status, else None."""
    return value if isinstance(value, int) and 100 <= value <= 999 else None


def figures(**given: Any) -> dict[str, float]:
    """Those of the figures that are numbers and can be true."""
    return {
        name: value
        for name, value in given.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 10**12
    }


def final(text: str) -> str:
    """The end of a final answer, as much as a result keeps."""
    return text[-FINAL_CHARACTERS:]


def parts_text(content: Any) -> str:
    """The text of a content: a string, or a list of parts of which some have ``text``."""
    if isinstance(content, str):
        return unicode(content)
    return "\n".join(unicode(part.get("text")) for part in items(content) if part.get("text"))


def call_text(arguments: Mapping[str, Any]) -> str:
    """What a person wants to see of a call: the command, else the path, else the names and values."""
    for name in ("command", "filePath", "file_path", "path", "pattern", "url"):
        if value := unicode(arguments.get(name)):
            return value
    return ", ".join(f"{unicode(name)}={clip(_shown(value), 100)}" for name, value in islice(arguments.items(), 10))


def tool(name: Any, call_id: Any) -> dict[str, str]:
    """The ``data`` by which a call and its result are known."""
    return {"name": clip(unicode(name), 100), "id": clip(unicode(call_id), 100)}


def _shown(value: Any) -> str:
    """A single value as it is; of a list or an object only that it is one, for it may be nested without end."""
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else "[…]"
    return unicode(value) if isinstance(value, str) else str(value)
