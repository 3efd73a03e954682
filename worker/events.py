"""``events.jsonl``: every event of an attempt, normalised, one JSON object a line; bounded: the guest feeds it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tatin_jobs.results import write_durably
from worker.agents.base import AgentEvent
from worker.redaction import Redactor

MAX_EVENTS = 100_000
MAX_BYTES = 64 * 2**20
OURS = (b'"kind": "step"', b'"kind": "network"')
"""How a fact of ours begins, behind its time. An agent's text has no such quotes: they are escaped."""


class EventLog:
    """Appends to one file, and sums up what the events tell of usage. The file is made with the first event."""

    def __init__(self, path: Path, redactor: Redactor | None = None) -> None:
        self._path = path
        self._redactor = redactor or Redactor()
        self._count = 0
        self._bytes = 0
        self.cut = False
        self.turns = 0
        self.tool_calls = 0
        self.sums: dict[str, float] = {}
        """What ``usage`` events added up to; a figure that no event named is absent."""

    def begin_again(self) -> None:
        """An earlier worker wrote this file, and the agent's stream will come once more: only what is ours is kept.
        Whoever is killed here leaves the old file or the new. Raises OSError."""
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        kept = [line for line in lines if any(kind in line[:80] for kind in OURS)]
        write_durably(self._path, b"".join(kept))
        self._count, self._bytes = len(kept), sum(map(len, kept))

    def ours(self, kind: str, **fields: Any) -> None:
        """A fact of ours: a step, a place that was denied. It may quote the guest."""
        self._append([{"kind": kind, **self._redactor.tree(fields)}])

    def agent(self, events: Iterable[AgentEvent]) -> None:
        """Events that the tool's adapter read from its stream."""
        lines = []
        for event in events:
            if event.kind == "usage":
                self.turns += 1
                self._add(event.data)
            elif event.kind == "tool_call":
                self.tool_calls += 1
            elif event.kind == "final":
                self._add({name: value for name, value in event.data.items() if name not in self.sums})
            lines.append(self._redactor.tree(record_of(event)))
        if lines:
            self._append(lines)

    def _add(self, figures: Mapping[str, Any]) -> None:
        for name, value in figures.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
                self.sums[name] = self.sums.get(name, 0) + value

    def _append(self, records: list[dict[str, Any]]) -> None:
        if self.cut:
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        data = b"".join(json.dumps({"at": at, **record}).encode() + b"\n" for record in records)
        if self._count + len(records) > MAX_EVENTS or self._bytes + len(data) > MAX_BYTES:
            self.cut = True
            data = (
                json.dumps({"at": at, "kind": "cut", "text": "too many events; the rest is not kept"}).encode() + b"\n"
            )
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        self._count += len(records)
        self._bytes += len(data)


def record_of(event: AgentEvent) -> dict[str, Any]:
    """The event as JSON has it, in ``events.jsonl`` and in the live log."""
    return {"kind": event.kind, "text": event.text, **({"data": dict(event.data)} if event.data else {})}
