"""Whose fault it is when a model's provider answers with an error: one table, for the model route and the agents."""

from __future__ import annotations

import re

from tatin_jobs.states import Reason


def status_reason(status: int) -> Reason:
    """The reason that an HTTP status over 399 of a provider stands for."""
    if status in (401, 403):
        return Reason.AUTH
    if status in (402, 429):
        return Reason.QUOTA
    if status in (400, 413, 422):
        return Reason.AGENT  # what it asked for is wrong (a context that is too long); asking again changes nothing
    return Reason.PROVIDER


_STATUS = re.compile(r"(?<![\d.])(?:HTTP |status(?: code)?[ :=]*)?([45]\d\d)(?![\d.])", re.IGNORECASE)


def status_in_text(text: str) -> int | None:
    """The HTTP status over 399 that an error's text begins with or names; None when it names none."""
    found = _STATUS.match(text) or _STATUS.search(text[:200])
    return int(found[1]) if found else None
