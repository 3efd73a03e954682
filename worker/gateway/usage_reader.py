"""Reads one answer of a provider as it passes: its tokens, and whether it came to its end. Never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_LINE_BYTES = 256 * 2**10
"""A longer line of a stream is not looked into: the line with the usage is a few hundred bytes."""
MAX_BODY_BYTES = 2**20
"""A longer answer that is no stream is not looked into."""
_FAILED = re.compile(rb'"type"\s*:\s*"(?:error|response\.failed)"|"error"\s*:\s*[{"]')
_ENDED = re.compile(
    rb'^\s*\[DONE\]\s*$|"finish_reason"\s*:\s*"|"type"\s*:\s*"(?:message_stop|response\.(?:completed|incomplete))"'
)
"""What a line of a stream has when the stream is at its end, in Chat Completions, Messages and Responses. (Inside a
JSON string the quotes would be escaped, so what a model says is not taken for it.)"""


class AnswerReader:
    """``finished``: it was no stream, or a stream that came to its end; a stream that just stops is not. ``failed``:
    the stream told of an error. Tokens stay None when the answer names none."""

    def __init__(self, content_type: str) -> None:
        self._is_stream = content_type == "text/event-stream"
        self._is_json = content_type == "application/json"
        self._rest = bytearray()
        self._skipping = False
        self.finished = not self._is_stream
        self.failed = False
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer."""
        if self._is_stream:
            for line in self._lines(data):
                self._read_line(line)
        elif self._is_json and not self._skipping:
            self._rest += data
            if len(self._rest) > MAX_BODY_BYTES:
                self._rest.clear()
                self._skipping = True

    def end(self) -> None:
        """The answer is over."""
        if self._is_json and self._rest:
            self._look_into(bytes(self._rest))
        elif self._is_stream:
            self._read_line(bytes(self._rest))

    def _read_line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:]
        self.failed = self.failed or _FAILED.search(data) is not None
        self.finished = self.finished or self.failed or _ENDED.search(data) is not None
        if b'"usage"' in data:
            self._look_into(data)

    def _lines(self, data: bytes) -> Iterator[bytes]:
        *whole, last = data.split(b"\n")
        for part in whole:
            line = bytes(self._rest) + part
            self._rest.clear()
            if not self._skipping:
                yield line
            self._skipping = False
        if not self._skipping:
            self._rest += last
            if len(self._rest) > MAX_LINE_BYTES:
                self._rest.clear()
                self._skipping = True
                self.finished = True  # it may have been the end, and a good answer must not be called a broken one

    def _look_into(self, data: bytes) -> None:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(answer, dict):
            return
        # Chat Completions and Messages have it at the top, Responses under `response`, the first event of a
        # Messages stream under `message`. Figures of a stream are totals so far, so the last one counts.
        for holder in (answer, answer.get("response"), answer.get("message")):
            if isinstance(holder, dict) and isinstance(usage := holder.get("usage"), dict):
                self.input_tokens = _figure(usage, "prompt_tokens", "input_tokens", self.input_tokens)
                self.output_tokens = _figure(usage, "completion_tokens", "output_tokens", self.output_tokens)


def _figure(usage: Mapping[str, Any], chat: str, messages: str, before: int | None) -> int | None:
    value = usage.get(chat, usage.get(messages))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
        return value
    return before
