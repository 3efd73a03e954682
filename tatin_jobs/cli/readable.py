"""Lines of ``events.jsonl`` as a person reads them while a job runs. What the events say is the guest's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tatin_jobs.terminal import clean, clean_line

RESULT_LINES = 3
READ_BYTES = 256 * 1024


class EventTail:
    """Reads on in one attempt's ``events.jsonl``, which may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[str]:
        """The lines that people see of the events that came since."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(READ_BYTES)
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield from event_lines(event)


def event_lines(event: dict[str, Any]) -> Iterator[str]:
    """One event: messages and errors in full, a tool call as one line, the beginning of its result."""
    text = str(event.get("text", ""))
    data = event.get("data") if isinstance(event.get("data"), dict) else {}
    match event.get("kind"):
        case "message" | "final":
            yield from clean(text).strip().splitlines()
        case "error" | "retry":
            yield f"! {clean_line(text)}"
        case "tool_call":
            yield f"$ {clean_line(str((data or {}).get('name', '')), 40)} {clean_line(text)}".rstrip()
        case "tool_result":
            lines = [line for line in clean(text).splitlines() if line.strip()]
            yield from (f"  {clean_line(line)}" for line in lines[:RESULT_LINES])
            if len(lines) > RESULT_LINES:
                yield f"  ... {len(lines) - RESULT_LINES} more lines"


def is_event_stream(line: str) -> bool:
    """Whether a line of a log is a tool's own JSON event, which people get to see as ``event_lines`` instead."""
    if not line.startswith('{"'):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return len(line) > 1000  # a long one was cut into pieces
