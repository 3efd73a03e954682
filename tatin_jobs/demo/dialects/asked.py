"""What a request asks for and what an API makes of an answer, whichever API it is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tatin_jobs.demo.faults import ErrorAnswer
from tatin_jobs.demo.scripts import Turn

PIECE_CHARACTERS = 12
BYTES_PER_TOKEN = 4
"""The usual estimate; the server reports usage from it, as a real one counts."""


@dataclass(frozen=True)
class Asked:
    """One request. ``results``: what the tools returned so far, oldest first. ``tools``: name of each tool that the
    agent offers -> the names of its arguments."""

    model: str
    results: Sequence[str]
    tools: Mapping[str, frozenset[str]]
    stream: bool
    with_usage: bool
    size_bytes: int

    @property
    def call_id(self) -> str:
        """For a call in the answer to this."""
        return f"call_{len(self.results) + 1}"

    def usage(self, turn: Turn) -> tuple[int, int]:
        """(input, output) tokens of the answer ``turn``."""
        said = len(turn.text.encode()) + len(turn.reasoning.encode()) + len(arguments_of(turn))
        return self.size_bytes // BYTES_PER_TOKEN, max(1, said // BYTES_PER_TOKEN)


class Dialect(ABC):
    """One API."""

    path: ClassVar[str]
    end: ClassVar[bytes] = b""
    """What ends a stream after its last event."""

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> Asked:
        """Raises KeyError, TypeError, ValueError or AttributeError: the body is no request of this API."""

    @abstractmethod
    def events(self, asked: Asked, turn: Turn, *, length: bool) -> list[bytes]:
        """The answer as a stream; ``length``: it ends because the output limit was reached."""

    @abstractmethod
    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        """The answer to a request without ``stream``."""

    @abstractmethod
    def error(self, answer: ErrorAnswer) -> dict[str, Any]:
        """The body of an answer that is an error."""

    def error_event(self, answer: ErrorAnswer) -> bytes:
        """An error inside a stream that has begun."""
        return event(self.error(answer))


def event(data: Mapping[str, Any]) -> bytes:
    """One event of a stream; those that have a ``type`` are named by it."""
    name = f"event: {data['type']}\n".encode() if "type" in data else b""
    return name + b"data: " + json.dumps(data).encode() + b"\n\n"


def pieces(text: str) -> list[str]:
    """The text as a model streams it."""
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]


def arguments_of(turn: Turn) -> str:
    """The arguments of the turn's call as JSON; empty without a call."""
    return json.dumps(dict(turn.call.arguments)) if turn.call else ""


def content_text(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in _parts(content) if isinstance(part.get("text"), str))


def _parts(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, list):
        yield from (part for part in content if isinstance(part, dict))
