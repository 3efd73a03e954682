"""JSON objects out of a stream of lines, from a program that may print anything at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MAX_LINE_BYTES = 2**20


class JsonLines:
    """Yields each line that is a JSON object. Other lines, and lines over 1 MiB, are skipped; never raises."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Objects that this piece completes. A line without an end is kept for the next piece."""
        *ended, last = data.split(b"\n")
        for part in ended:
            self._keep(part)
            if not self._skipping:
                yield from _parse(bytes(self._rest))
            self._rest.clear()
            self._skipping = False
        self._keep(last)

    def end(self) -> Iterator[dict[str, Any]]:
        """The object of a last line that has no newline, if it is one."""
        if not self._skipping:
            yield from _parse(bytes(self._rest))
        self._rest.clear()

    def _keep(self, part: bytes) -> None:
        if self._skipping or len(self._rest) + len(part) > self._max_line_bytes:
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += part


def _parse(line: bytes) -> Iterator[dict[str, Any]]:
    if not line.lstrip().startswith(b"{"):
        return
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        yield value
