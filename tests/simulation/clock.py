"""Virtual time: one monotonic clock for all, and the wall clock of the store's host, which may jump."""

from __future__ import annotations

BASE = 1_790_000_000.0


class Clock:
    """``now`` is monotonic seconds; ``wall`` is what the store's host believes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.jumped = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return BASE + self.now + self.jumped

    def wall_ms(self) -> int:
        return int(self.wall() * 1000)
