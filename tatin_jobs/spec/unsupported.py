"""What the design of the job file has and this version does not: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Mapping

NOT_YET = "is not supported yet."

FIELDS: Mapping[tuple[str, ...], str] = {
    ("repo", "submodules"): "leave it out, or fetch them in `setup`.",
    ("repo", "lfs"): "leave it out.",
}
"""Path of a field -> what to do instead."""

VALUES: Mapping[tuple[str, ...], Mapping[str, str]] = {}
"""Path of a field -> values that are known but not built, with why."""


def not_yet(path: tuple[str, ...]) -> tuple[str, str] | None:
    """(message, what to do instead) when ``path`` is a field of the design that is not built; else None."""
    advice = FIELDS.get(path)
    return (f"`{'.'.join(path)}` {NOT_YET}", advice) if advice else None
