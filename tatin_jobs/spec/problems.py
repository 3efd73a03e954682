"""Complaints while they are collected: where in the document, what is wrong, what to try; later sorted and shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tatin_jobs.errors import Complaint
from tatin_jobs.terminal import clean_line

Path = tuple[str | int, ...]
"""Keys and indexes from the top of a document to a value."""

_USER_PART = re.compile(r"(?<=://)\S*@|[^\s/:@]+:[^\s@]+@")


class FieldError(ValueError):
    """A value that a field does not take; ``try_`` is what to write instead. Raised by the checks of fields.

    ``hidden``: the value holds what must not be repeated.
    """

    def __init__(self, message: str, try_: str | None = None, *, hidden: bool = False) -> None:
        super().__init__(message)
        self.hidden = hidden
        self.message = message
        self.try_ = try_


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one document.

    ``message`` reads on from the field's name, or from ``value`` when there is one (``'lots' is no whole number``).
    ``value`` is None where it need not or must not be shown.
    """

    path: Path
    message: str
    value: object = None
    try_: str | None = None
    line: int | str | None = None
    """Set when it is known better than by the path: a line, or the override it comes from (``--set key``)."""


def complaint(file: str, line: int | str | None, field: str, problem: Problem) -> Complaint:
    """The problem as people see it. What comes from an override has that as its file."""
    value = None if problem.value is None else shown(problem.value)
    return Complaint(
        file=clean_line(line if isinstance(line, str) else file, 300),
        line=line if isinstance(line, int) else None,
        field=field,
        message=problem.message if value is None else f"'{value}' {problem.message}",
        value=value,
        try_=problem.try_,
    )


def dotted(path: Path) -> str:
    """``resources.memory``, ``args[2]``; cleaned."""
    text = ""
    for part in path:
        name = f"[{part}]" if isinstance(part, int) else clean_line(part, 60)
        text += name if isinstance(part, int) or not text else f".{name}"
    return text


def shown(value: object) -> str:
    """A value for people: one cleaned line of at most 80 characters, without the user part of an address (A22)."""
    text = value if isinstance(value, str) else str(value)
    return clean_line(_USER_PART.sub("", text[:2000]), 80)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """``Did you mean `prompt`?`` when one is near."""
    close = difflib.get_close_matches(word[:60].lower(), sorted(known), n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else None


def one_of(names: Sequence[str]) -> str:
    """``one of: a, b, c``."""
    return f"one of: {', '.join(names)}" if len(names) > 1 else f"`{names[0]}`"
