"""What can be followed: changes, live logs, wake-ups. In streams, since publish and subscribe drops slow readers."""

from __future__ import annotations

from typing import Any, cast

from pydantic import ValidationError

from tatin_jobs.models import LogChunk
from tatin_jobs.store.base import Base, text
from tatin_jobs.store.scripts import store_errors

GATES_CHANGED = "*"
"""Stands among the ids that moved when a gate was opened or closed; no job is called so."""
MAX_BLOCK_SECONDS = 2.0
"""A blocking read returns at least this often, well within the time limit of a call."""


class Streams(Base):
    """Bounded streams; a cursor is the id of the last entry that was read."""

    def changes(self, cursor: str, block_seconds: float) -> tuple[str, list[str]]:
        """Ids that moved since ``cursor`` (``$``: from now on), waiting for the first; the cursor to go on from."""
        with store_errors():
            if cursor == "$":
                cursor = self._last_entry("changes")
            entries = self._read("changes", cursor, block_seconds)
            if not entries and _number(self._last_entry("changes")) < _number(cursor):
                return "0", []  # the store was emptied, and its clock is behind the old cursor (F26)
        moved = list(dict.fromkeys(text(fields[b"id"]) for _, fields in entries))
        return (entries[-1][0] if entries else cursor), moved

    def wake(self, cursor: str, block_seconds: float) -> str:
        """Wait until something became claimable since ``cursor`` (``0`` at first); the cursor to go on from."""
        with store_errors():
            entries = self._read("wake", cursor, block_seconds)
        return entries[-1][0] if entries else cursor

    def read_log(self, job_id: str, cursor: str = "0", block_seconds: float = 0) -> list[LogChunk]:
        """The live log behind ``cursor`` (``0``: what is still kept), waiting for something when there is nothing."""
        with store_errors():
            entries = self._read(f"log:{job_id}", cursor, block_seconds)
        chunks = []
        for entry, fields in entries:
            try:
                stream = cast("Any", text(fields[b"s"]))
                chunks.append(LogChunk(cursor=entry, attempt=int(fields[b"a"]), stream=stream, data=fields[b"d"]))
            except (KeyError, ValueError, ValidationError):
                continue
        return chunks

    def _read(self, name: str, cursor: str, block_seconds: float) -> list[tuple[str, dict[bytes, bytes]]]:
        block = max(1, round(min(block_seconds, MAX_BLOCK_SECONDS) * 1000)) if block_seconds > 0 else None
        answer = cast("Any", self._client.xread({self._key(name): cursor}, count=500, block=block))
        if not answer:
            return []
        entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
        return [(text(entry), fields) for entry, fields in entries]

    def _last_entry(self, name: str) -> str:
        found = cast("list[tuple[bytes, Any]]", self._client.xrevrange(self._key(name), count=1))
        return text(found[0][0]) if found else "0"


def _number(cursor: str) -> tuple[int, int]:
    ms, _, rest = cursor.partition("-")
    return int(ms), int(rest or 0)
