"""What went where, and what was denied: counted as it happens, bounded, because a guest names the places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tatin_jobs.results import NetworkFacts
from worker.gateway.egress.denial import Denial
from worker.gateway.egress.limits import DEFAULT_LIMITS, EgressLimits

MANY = "(others)"
"""Stands for every place that came when there were too many to tell one by one."""


class UsedUp(Exception):
    """The attempt has moved all the bytes that it may."""


@dataclass
class Destination:
    """One host and port that was reached, or that failed to answer. Bytes are the payload's, as seen by the guest."""

    connections: int = 0
    """Tunnels and plain requests."""
    failed: int = 0
    """Of these: the host could not be found or reached."""
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass
class Evidence:
    """Kept up to date while the gateway runs; readable afterwards. ``on_denied`` is called at the first of each
    place and reason."""

    limits: EgressLimits = DEFAULT_LIMITS
    on_denied: Callable[[Denial], None] = lambda denial: None
    destinations: dict[str, Destination] = field(default_factory=dict)
    denied: dict[tuple[str, str], int] = field(default_factory=dict)
    """(where, why) -> how often."""
    total_bytes: int = 0

    def go_on(self, earlier: NetworkFacts) -> None:
        """Count on from what an earlier worker had counted of this attempt."""
        for item in earlier.reached:
            self.destinations[item.where] = Destination(
                item.connections, item.failed, item.sent_bytes, item.received_bytes
            )
            self.total_bytes += item.sent_bytes + item.received_bytes
        self.denied = {(item.where, item.why): item.times for item in earlier.denied}

    def destination(self, where: str) -> Destination:
        """The counters of ``where``."""
        if where not in self.destinations and len(self.destinations) >= self.limits.destinations:
            where = MANY
        return self.destinations.setdefault(where, Destination())

    def moved(self, destination: Destination, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes.

        Raises:
            UsedUp: these were the last that the attempt may move.
        """
        destination.sent_bytes += sent
        destination.received_bytes += received
        self.total_bytes += sent + received
        if self.total_bytes > self.limits.total_bytes:
            raise UsedUp

    def deny(self, denial: Denial) -> None:
        """Count it, and tell of it when it is new."""
        key = (denial.where, denial.why)
        if key not in self.denied and len(self.denied) >= self.limits.destinations:
            key = (MANY, denial.why)
        new = key not in self.denied
        self.denied[key] = self.denied.get(key, 0) + 1
        if new and key[0] != MANY:
            self.on_denied(denial)
