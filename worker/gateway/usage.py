"""What went through a model route, and what its answers told of: tokens, and whether they came to their end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tatin_jobs.states import Reason
from worker.model_errors import status_reason

UNREACHABLE = "unreachable"
"""The key in ``RouteUsage.errors`` for a provider that could not be reached."""
MAX_LINE_BYTES = 256 * 2**10
"""A longer line of a stream is not looked into: the line with the usage is a few hundred bytes."""
MAX_BODY_BYTES = 2**20
"""A longer answer that is no stream is not looked into."""
_END = re.compile(
    rb'\[DONE\]|"finish_reason"\s*:\s*"|"type"\s*:\s*"(?:message_stop|error|response\.(?:completed|incomplete|failed))"|"error"\s*:'
)
"""What a line of a stream has when the stream is at its end, in Chat Completions, Messages and Responses."""


@dataclass
class RouteUsage:
    """Figures of one attempt's route, kept up to date while it runs. Tokens are None until an answer told of some."""

    calls: int = 0
    """Calls that were passed on to the provider."""
    refused: int = 0
    """Calls that were not: wrong token, path or size."""
    errors: dict[str, int] = field(default_factory=dict)
    """Status of an answer over 399, or ``unreachable``, ``timeout``, ``cut``, ``redirect``, ``html``, ``empty``,
    ``too_large`` -> how often."""
    request_bytes: int = 0
    response_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    last_status: int | None = None
    last_error: str | None = None
    """One sentence for people about the newest call when it failed; None when it went well or there was none."""
    last_activity: float = 0.0
    """``time.monotonic()`` of the last sign of life: a call that began, or bytes of an answer. 0: none so far."""
    _last_kind: str = ""

    def failed(self, kind: str, message: str) -> None:
        """Count a call that failed; ``kind`` is a key of ``errors``."""
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self.last_error = message
        self._last_kind = kind

    def went_well(self) -> None:
        """A call came to its end."""
        self.last_error = None

    def blame(self) -> tuple[Reason, str] | None:
        """Whose fault it is that the newest call failed, and one sentence; None when it did not.

        For an agent that was ended while it waited for its model: its own output says nothing of it.
        """
        if self.last_error is None:
            return None
        return status_reason(int(self._last_kind)) if self._last_kind.isdigit() else Reason.PROVIDER, self.last_error

    def add_tokens(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Add what one answer told."""
        if input_tokens is not None:
            self.input_tokens = (self.input_tokens or 0) + input_tokens
        if output_tokens is not None:
            self.output_tokens = (self.output_tokens or 0) + output_tokens


class AnswerReader:
    """Reads one answer as it passes, stream or not. Never raises; memory is bounded.

    ``finished``: it was no stream, or a stream that came to its end; a stream that just stops is not.
    """

    def __init__(self, content_type: str) -> None:
        self._is_stream = content_type.startswith("text/event-stream")
        self._is_json = content_type.startswith("application/json")
        self._rest = bytearray()
        self._skipping = False
        self.finished = not self._is_stream
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer."""
        if self._is_stream:
            for line in self._lines(data):
                if line.startswith(b"data:"):
                    self._read_data(line[5:])
        elif self._is_json and not self._skipping:
            self._rest += data
            if len(self._rest) > MAX_BODY_BYTES:
                self._rest.clear()
                self._skipping = True

    def end(self) -> None:
        """The answer is over."""
        if self._is_json and self._rest:
            self._look_into(bytes(self._rest))
        elif self._is_stream and self._rest.startswith(b"data:"):
            self._read_data(bytes(self._rest[5:]))

    def _read_data(self, data: bytes) -> None:
        self.finished = self.finished or _END.search(data) is not None
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
