"""Numbers of tokens by kind. None: not told, which is not 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

KINDS = ("input", "output", "cache_read", "cache_write")


@dataclass(frozen=True)
class Tokens:
    """``input`` is without what was read from or written to a cache."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None

    def or_else(self, other: Self | None) -> Tokens:
        """These, and those of ``other`` where nothing is told here."""
        if other is None:
            return self
        return Tokens(*(old if new is None else new for new, old in zip(self._all, other._all, strict=True)))

    def __add__(self, other: Tokens) -> Tokens:
        pairs = zip(self._all, other._all, strict=True)
        return Tokens(*(a if b is None else b if a is None else a + b for a, b in pairs))

    @property
    def told(self) -> bool:
        """Whether any kind is known."""
        return any(value is not None for value in self._all)

    @property
    def total(self) -> int:
        """All kinds together, each token once."""
        return sum(value or 0 for value in self._all)

    @property
    def _all(self) -> tuple[int | None, ...]:
        return tuple(getattr(self, kind) for kind in KINDS)
