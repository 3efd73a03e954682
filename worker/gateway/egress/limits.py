"""The limits of one attempt's egress gateway. A guest is hostile: every size, number and wait has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EgressLimits:
    """Waits are for silence, not for work: a large download may take as long as it moves."""

    connections: int = 128
    """Of the guest at once; further ones are closed at once."""
    header_bytes: int = 64 * 2**10
    """Of the head of one request or answer."""
    total_bytes: int = 64 * 2**30
    """Of one attempt, both ways together; then nothing passes any more."""
    lookups: int = 8
    """Names looked up at once; further ones wait."""
    lookup_seconds: float = 15
    connect_seconds: float = 15
    """For each address of a host."""
    head_seconds: float = 60
    """From a connection's first byte to the end of a request's head, and while it waits for the next request."""
    silence_seconds: float = 600
    """Without a byte in either direction."""
    destinations: int = 1000
    """Told one by one in the result; what comes after is added up."""


DEFAULT_LIMITS = EgressLimits()
