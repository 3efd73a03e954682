"""Reads one answer of a provider as it passes: its tokens, and whether it came to its end. Never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from worker.gateway.tokens import Tokens

MAX_LINE_BYTES = 256 * 2**10
"""A longer line of a stream is not looked into: the line with the usage is a few hundred bytes."""
MAX_BODY_BYTES = 2**20
"""A longer answer that is no stream is not looked into."""
ERROR_BYTES = 4096
BYTES_PER_TOKEN = 4
"""Of English and of code, roughly."""
_FAILED = re.compile(rb'"type"\s*:\s*"(?:error|response\.failed)"|"error"\s*:\s*[{"]')
_ENDED = re.compile(
    rb'^\s*\[DONE\]\s*$|"finish_reason"\s*:\s*"|"type"\s*:\s*"(?:message_stop|response\.(?:completed|incomplete))"'
)
"""What a line of a stream has when the stream is at its end, in Chat Completions, Messages and Responses. (Inside a
JSON string the quotes would be escaped, so what a model says is not taken for it.)"""
_SIGNS = (b'"error"', b"response.failed", b"[DONE]", b"message_stop", b"response.completed", b"response.incomplete")
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
"""One of these is in whatever the two patterns above find."""
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_PIECE = re.compile(rb'"delta"\s*:')
"""A piece of the model's own words, in all three dialects."""


class AnswerReader:
    """``finished``: it was no stream, or a stream that came to its end; a stream that just stops is not. ``failed``:
    the stream told of an error, and ``error`` is the line. ``tokens`` is None when the answer names none; of a stream
    they are the totals so far. ``pieces``: how many pieces of the model's words came; each is a token or more. Of an
    answer that is no stream and tells nothing, or is too long to be looked into, they are worked out from its bytes."""

    def __init__(self, content_type: str) -> None:
        self._is_stream = content_type == "text/event-stream"
        self._is_json = content_type == "application/json"
        self._rest = bytearray()
        self._skipping = False
        self.finished = not self._is_stream
        self.failed = False
        self.error = b""
        self.tokens: Tokens | None = None
        self.pieces = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer."""
        if self._is_stream:
            self._feed_stream(data)
        elif self._is_json and not self._skipping:
            self._rest += data
            if len(self._rest) > MAX_BODY_BYTES:
                self.pieces = len(self._rest) // BYTES_PER_TOKEN
                self._rest.clear()
                self._skipping = True
        elif self._is_json:
            self.pieces += len(data) // BYTES_PER_TOKEN

    def end(self) -> None:
        """The answer is over."""
        if self._is_json and self._rest:
            self._look_into(bytes(self._rest))
            if self.tokens is None:
                self.pieces = len(self._rest) // BYTES_PER_TOKEN
        elif self._is_stream:
            self._read_line(bytes(self._rest))

    def so_far(self) -> Tokens:
        """The tokens of an answer that still comes: what it told, and at least one for each piece of its words."""
        told = self.tokens or Tokens()
        return replace(told, output=max(told.output or 0, self.pieces))

    def _read_lines(self, lines: bytes) -> None:
        """Whole lines. Most of a stream is pieces of words: what has nothing else in it is not taken apart."""
        if any(sign in lines for sign in _SIGNS) or _FINISH.search(lines) or _USAGE.search(lines):
            for line in lines.split(b"\n"):
                self._read_line(line)
        else:
            self.pieces += len(_PIECE.findall(lines))

    def _read_line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:]
        if not self.failed and _FAILED.search(data):
            self.failed, self.error = True, data[:ERROR_BYTES]
        self.finished = self.finished or self.failed or _ENDED.search(data) is not None
        self.pieces += len(_PIECE.findall(data))
        if _USAGE.search(data):
            self._look_into(data)

    def _feed_stream(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if end:
            lines = bytes(self._rest) + data[:end]
            self._rest.clear()
            if self._skipping:
                lines = lines[lines.index(b"\n") + 1 :]
                self._skipping = False
            self._read_lines(lines)
        if not self._skipping:
            self._rest += data[end:]
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
        # Messages stream under `message`. Figures of a stream are totals so far, so the last one of each counts.
        for holder in (answer, answer.get("response"), answer.get("message")):
            if isinstance(holder, dict) and isinstance(usage := holder.get("usage"), dict):
                told = tokens_told(usage)
                self.tokens = told.or_else(self.tokens) if told.told else self.tokens


def tokens_told(usage: Mapping[str, Any]) -> Tokens:
    """The figures of a ``usage`` object of any dialect. OpenAI's input includes what came from its cache, Anthropic's
    does not; here it does not."""
    read = _figure(usage, "cache_read_input_tokens")
    cached = _cached(usage)
    given = _figure(usage, "prompt_tokens", "input_tokens")
    if given is not None and cached is not None:
        given = max(0, given - cached)
    return Tokens(
        input=given,
        output=_figure(usage, "completion_tokens", "output_tokens"),
        cache_read=cached if read is None else read,
        cache_write=_figure(usage, "cache_creation_input_tokens"),
    )


def _cached(usage: Mapping[str, Any]) -> int | None:
    for name in ("prompt_tokens_details", "input_tokens_details"):
        if isinstance(details := usage.get(name), dict):
            return _figure(details, "cached_tokens")
    return None


def _figure(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
            return value
    return None
