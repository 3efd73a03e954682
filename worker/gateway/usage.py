"""What went through a model route, and whose fault it was when a call failed."""

from __future__ import annotations

from dataclasses import dataclass, field

from tatin_jobs.states import Reason
from worker.model_errors import status_reason

UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
CUT = "cut"
REDIRECT = "redirect"
HTML = "html"
EMPTY = "empty"
TOO_LARGE = "too_large"
STREAM_ERROR = "error"
CLOSED = "closed"
"""Keys of ``RouteUsage.errors`` beside the statuses over 399. ``error``: one inside a stream that had begun."""


class CallFailed(Exception):
    """A call that had no good answer. ``kind`` is a key of ``RouteUsage.errors``, ``status`` what the guest gets."""

    def __init__(self, kind: str, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status


@dataclass
class RouteUsage:
    """Figures of one attempt's route, kept up to date while it runs. Tokens are as the provider counts them, and None
    until an answer told of some."""

    calls: int = 0
    """Calls that were passed on to the provider."""
    refused: int = 0
    """Calls that were not: wrong token, path, model or size."""
    errors: dict[str, int] = field(default_factory=dict)
    """Status of an answer over 399, or what else went wrong -> how often."""
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
    _given_up: bool = False

    def failed(self, kind: str, message: str) -> None:
        """Count a call that failed; ``kind`` is a key of ``errors``."""
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self.last_error = message
        self._last_kind = kind
        self._given_up = False

    def went_well(self) -> None:
        """A call came to its end."""
        self.last_error = None
        self._given_up = False

    def given_up(self) -> None:
        """The guest went, or was killed, before a call had come to its end."""
        self._given_up = True

    def blame(self, *, stalled: bool = False) -> tuple[Reason, str] | None:
        """Whose fault it is that the newest call failed, and one sentence; None when it did not.

        For an agent whose own output does not say: one that was ended while it waited for its model, or that ended as
        if by itself. ``stalled``: it was ended because neither it nor the model gave a sign of life; then a call that
        was still under way is one that the provider did not answer.
        """
        if stalled and self._given_up:
            return Reason.PROVIDER, "The model provider did not go on with a call for all of that time."
        if self.last_error is None:
            return None
        return status_reason(int(self._last_kind)) if self._last_kind.isdigit() else Reason.PROVIDER, self.last_error

    def add_tokens(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Add what one answer told."""
        if input_tokens is not None:
            self.input_tokens = (self.input_tokens or 0) + input_tokens
        if output_tokens is not None:
            self.output_tokens = (self.output_tokens or 0) + output_tokens
