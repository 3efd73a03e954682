"""Artifact patterns of a job -> where to search in the guest, and one expression (POSIX extended) of what to take.

A pattern is relative to the guest's home: ``work/report.html``, ``work/**/*.csv``, ``work/plots``. ``*`` and ``?`` stay
inside one name, ``**`` crosses folders, ``[ab]`` is one of these; what names a folder takes all below it. Only a
pattern that begins with the repository's own path reaches into the repository, so ``work/**`` does not bring it all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SPECIAL = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]\[/]+\]|.", re.DOTALL)


@dataclass(frozen=True)
class Search:
    """What to search. Paths are ``./``-relative to the guest's home; ``pattern`` empty: everything found."""

    roots: tuple[str, ...]
    repo_roots: tuple[str, ...]
    pattern: str
    unusable: tuple[str, ...] = ()
    """Patterns that lead out of the home or are none, each with why."""


def plan_search(globs: Sequence[str] | None, *, home: str, repo_path: str) -> Search:
    """Where to look for ``globs``; None: all of ``work/`` but the repository."""
    repo = repo_path.removeprefix(f"{home}/")
    if globs is None:
        return Search((f"./{repo.split('/')[0]}",), (), "")
    roots: set[str] = set()
    repo_roots: set[str] = set()
    patterns: list[str] = []
    unusable: list[str] = []
    for glob in globs:
        plain = glob.removeprefix(f"{home}/").removeprefix("./").rstrip("/")
        if problem := _problem(plain):
            unusable.append(f"pattern {glob[:100]!r}: {problem}")
            continue
        inside = plain == repo or plain.startswith(f"{repo}/")
        (repo_roots if inside else roots).add(_root(plain))
        patterns.append(_expression(plain))
    pattern = f"^\\./({'|'.join(patterns)})(/.*)?$" if patterns else ""
    return Search(_outermost(roots), _outermost(repo_roots), pattern, tuple(unusable))


def _problem(glob: str) -> str | None:
    if not glob or not glob.isprintable() or len(glob) > 1000:
        return "not a usable path"
    if glob.startswith(("/", "~")) or ".." in glob.split("/"):
        return "it leads out of the guest's home folder"
    try:
        re.compile(_expression(glob))  # a range such as [z-a] would make grep refuse all patterns
    except re.error as error:
        return str(error)
    return None


def _root(glob: str) -> str:
    """The folder (or file) before the first special character."""
    match = _SPECIAL.search(glob)
    fixed = glob if match is None else glob[: match.start()].rpartition("/")[0]
    return f"./{fixed}" if fixed else "."


def _outermost(roots: set[str]) -> tuple[str, ...]:
    """Without those that lie inside another, so that nothing is found twice."""
    return tuple(
        sorted(root for root in roots if not any(root.startswith(f"{other}/") for other in roots if other != root))
    )


def _expression(glob: str) -> str:
    return "".join(_translate(token) for token in _TOKEN.findall(glob))


def _translate(token: str) -> str:
    match token:
        case "**/":
            return "(.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
    if len(token) > 2 and token.startswith("["):
        return f"[^{token[2:]}" if token[1] == "!" else token
    return token if token.isalnum() or token in "/_-" or not token.isascii() else _escape(token)


def _escape(char: str) -> str:
    return f"\\{char}" if char in r"\^$.[]|()*+?{}" else char
