"""Every way in which a model server can fail an agent, on demand: ask for the model ``fail-<name>``.

The answers are those of real servers: status, headers, and an error body as the API that is asked gives it.
``fail-once-<name>`` fails the first call only, and then goes on with the script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX = "fail-"
ONCE = "once-"


@dataclass(frozen=True)
class ErrorAnswer:
    """An answer that is not 200. ``code`` is OpenAI's word for it; Anthropic's follows from the status."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    resets_in_seconds: int | None = None
    """With this, as Anthropic answers a subscriber whose window is used up: when it ends, in seconds since 1970."""


class Break(StrEnum):
    """A 200 that goes wrong in its body."""

    CUT = "cut"
    """The connection breaks in the middle of a message."""
    UNFINISHED = "unfinished"
    """The stream ends in the middle of a message, cleanly but without its end mark."""
    SILENT = "silent"
    """The stream opens and then says nothing."""
    HANG = "hang"
    """The headers never come."""
    HTML = "html"
    """A web page instead of an answer, as a captive portal gives."""
    EMPTY = "empty"
    """No body at all."""
    BAD_JSON = "bad-json"
    ERROR = "error"
    """The stream turns into an error in the middle of a message."""
    LENGTH = "length"
    """A good answer that ends because the output limit was reached."""
    NO_TEXT = "no-text"
    """The model says it is done, and nothing else."""
    SLOW = "slow"
    """A good answer, a piece every half second."""


ERRORS: Mapping[str, ErrorAnswer] = {
    "401": ErrorAnswer(401, "invalid_api_key", "Incorrect API key provided."),
    "403": ErrorAnswer(403, "forbidden", "You may not use this model."),
    "404": ErrorAnswer(404, "model_not_found", "The model does not exist."),
    "429": ErrorAnswer(429, "rate_limit_exceeded", "Rate limit reached.", {"Retry-After": "1"}),
    "quota": ErrorAnswer(429, "insufficient_quota", "You exceeded your current quota.", {"Retry-After": "3600"}),
    "usage-limit": ErrorAnswer(
        429,
        "rate_limit_exceeded",
        "This request would exceed your account's rate limit. Please try again later.",
        {
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
        },
        resets_in_seconds=3600,
    ),
    "500": ErrorAnswer(500, "server_error", "The server had an error."),
    "529": ErrorAnswer(529, "overloaded_error", "Overloaded"),
    "context": ErrorAnswer(
        400, "context_length_exceeded", "This model's maximum context length is 8192 tokens; you asked for 9000."
    ),
}


def fault_for(model: str, earlier_calls: int) -> ErrorAnswer | Break | None:
    """What the model of this name does wrong after so many earlier calls to it; None: nothing."""
    if not model.startswith(PREFIX):
        return None
    name = model.removeprefix(PREFIX)
    if name.startswith(ONCE):
        if earlier_calls:
            return None
        name = name.removeprefix(ONCE)
    if name in ERRORS:
        return ERRORS[name]
    return Break(name) if name in list(Break) else None
