"""Whose fault it is when a model's provider answers with an error: one table, for the model route and for the agents."""

from __future__ import annotations

from tatin_jobs.states import Reason


def status_reason(status: int) -> Reason:
    """The reason that an HTTP status over 399 of a provider stands for."""
    if status in (401, 403):
        return Reason.AUTH
    if status in (402, 429):
        return Reason.QUOTA
    return Reason.PROVIDER
