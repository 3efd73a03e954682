"""Events of an agent as a person reads them. What the events say is the guest's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tatin_jobs.terminal import clean, clean_line

AGENT_EVENTS = frozenset({"message", "reasoning", "tool_call", "tool_result", "error", "retry", "final"})
"""Kinds of events that an agent tells of itself."""
SOME_LINES = 3
"""How many lines are shown of a thought and of what a tool returned."""


def event_of(data: bytes) -> dict[str, Any]:
    """The event in these bytes; an empty one when there is none."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


class EventStream:
    """Events out of the pieces of a live log, of which one may hold several, or a part of one."""

    MAX_BYTES = 2**20

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that this piece completes; what is none (its beginning is not kept any more) is passed over."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self.MAX_BYTES:
            self._rest = b""
        return [event for line in whole if (event := event_of(line))]


def event_lines(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(line, style) of one event: messages and errors in full, a tool call as one line, the beginning of a thought and
    of a result. Styles are rich's; the lines are clean."""
    text = str(event.get("text", ""))
    data = event.get("data")
    data = data if isinstance(data, dict) else {}
    match event.get("kind"):
        case "message":
            yield from ((line, "") for line in clean(text).strip().splitlines())
        case "reasoning":
            yield from _some(text, "~ ", "dim italic")
        case "error" | "retry":
            yield f"! {clean_line(text)}", "red" if event["kind"] == "error" else "yellow"
        case "tool_call":
            yield f"$ {clean_line(str(data.get('name', '')), 40)} {clean_line(text)}".rstrip(), "cyan"
        case "tool_result":
            yield from _some(text, "  ", "red" if data.get("failed") is True else "dim")


def stored_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of an ``events.jsonl``, oldest first; none when there is no such file."""
    try:
        with path.open("rb") as file:
            for line in file:
                yield event_of(line)
    except FileNotFoundError:
        return


def _some(text: str, mark: str, style: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in clean(text).splitlines() if line.strip()]
    yield from ((f"{mark}{clean_line(line)}", style) for line in lines[:SOME_LINES])
    if len(lines) > SOME_LINES:
        yield f"{mark}... {len(lines) - SOME_LINES} more lines", style
