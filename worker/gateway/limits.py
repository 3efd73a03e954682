"""The limits of one model route. A guest is hostile: every size, number and wait has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GatewayLimits:
    """Waits are long because a model on a CPU may take minutes to read a long prompt; the job's ``idle_timeout`` and
    ``timeout`` end an attempt earlier."""

    parallel_calls: int = 8
    """Further calls wait for one to end."""
    connections: int = 64
    """Further connections are closed at once."""
    request_bytes: int = 64 * 2**20
    """Of the bodies of all calls under way together: they are held in the worker's memory."""
    response_bytes: int = 256 * 2**20
    """Of one answer."""
    error_bytes: int = 64 * 2**10
    """Of the body of an answer over 399."""
    connect_seconds: float = 15
    silence_seconds: float = 3600
    """Until the provider's first byte, and between two pieces of its answer."""


DEFAULT_LIMITS = GatewayLimits()
