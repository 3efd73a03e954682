"""What is denied to a guest, in words for it and for the people who read its log."""

from __future__ import annotations

from dataclasses import dataclass

NOT_ALLOWED = "not allowed"
NO_NETWORK = "no network"
PRIVATE = "private address"
BAD_REQUEST = "bad request"
LIMIT = "limit"
"""Why something is denied."""


@dataclass(frozen=True)
class Denial:
    """``where`` is ``host:port``, or what stands for it; ``what_to_do`` a clause for people, or nothing."""

    where: str
    why: str
    what_to_do: str = ""

    def __str__(self) -> str:
        advice = f"; {self.what_to_do}" if self.what_to_do else ""
        return f"blocked: {self.where} ({self.why}){advice}"


def by_policy(where: str, why: str, field: str) -> Denial:
    """The job's own policy says no. ``field`` is that policy's."""
    if why == NO_NETWORK:
        inner = f"network: {{allow: [{where!r}]}}"
        if field != "network":
            inner = f"network: {{{field.removeprefix('network.')}: {{allow: [{where!r}]}}}}"
        return Denial(where, why, f"to allow it, write in the job: {inner}")
    return Denial(where, why, f"to allow it, add to {field}.allow of the job: {where!r}")


def not_public(where: str, address: str) -> Denial:
    """It is at an address that no job can allow by itself."""
    length = 128 if ":" in address else 32
    return Denial(
        where,
        PRIVATE,
        f"it is at {address}; where that is right, add to tatin.toml of the worker, which reads it when it starts,"
        f' under [gateway]: trusted_networks = ["{address}/{length}"]',
    )
