"""Which names of a guest's files become names on the host (A01, A10, A11).

Refused rather than mended: a mended name would be another file than the one the agent speaks of.
"""

from __future__ import annotations

import unicodedata

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 1000
"""macOS allows 1,024 with the folder in front."""
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control, bidi and zero-width characters, halves of a pair, line and paragraph separators."""


class NameRefused(ValueError):
    """The name is not taken; the text says why."""


def split_name(raw: bytes, max_depth: int) -> tuple[str, ...]:
    """The parts of a member's name, checked; a trailing ``/`` is left out.

    Raises:
        NameRefused: any part of it is not one that we make.
    """
    if len(raw) > MAX_PATH_BYTES:
        raise NameRefused(f"a name of over {MAX_PATH_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NameRefused("a name that is not UTF-8") from None
    if text.startswith("/"):
        raise NameRefused("an absolute name")
    parts = tuple(text.removesuffix("/").split("/"))
    if len(parts) > max_depth:
        raise NameRefused(f"over {max_depth} folders deep")
    for part in parts:
        _check_part(part)
    return parts


def _check_part(part: str) -> None:
    if part in ("", ".", ".."):
        raise NameRefused("an empty part, `.` or `..` in its name")
    if len(part.encode()) > MAX_PART_BYTES:
        raise NameRefused(f"a part of over {MAX_PART_BYTES} bytes in its name")
    if any(unicodedata.category(char) in _INVISIBLE for char in part):
        raise NameRefused("a control or invisible character in its name")
    if part.startswith("-"):
        raise NameRefused("a name that programs take for an option")
    if part.endswith((".", " ")) or part.startswith(" "):
        raise NameRefused("a space or dot at the end of a name")
    if fold(part) == ".git":
        # A shell prompt or editor that runs `git status` there would run commands that the agent planted (A12, A24).
        raise NameRefused("part of a .git folder")


def fold(name: str) -> str:
    """Equal for names that are the same file on a case-insensitive or normalising file system (A11)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def shown(raw: bytes) -> str:
    """A hostile name, harmless on a terminal and in a report; at most 120 characters."""
    text = raw[:400].decode("utf-8", errors="backslashreplace")
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return safe if len(safe) <= 120 else f"{safe[:117]}..."
