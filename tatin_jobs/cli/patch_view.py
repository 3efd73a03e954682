"""A patch for people: which files it changes by how much, and its text in colour. The patch itself is the guest's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from tatin_jobs.terminal import clean, clean_line, clean_log

_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_STYLES = (("+++", "bold"), ("---", "bold"), ("diff ", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"))


@dataclass
class FileChange:
    """One file of a patch; ``path`` as git wrote it, cleaned."""

    path: str
    added: int = 0
    removed: int = 0
    binary: bool = False


def diffstat(lines: Iterable[bytes]) -> list[FileChange]:
    """The files of a patch that git made, in its order. A line that looks like a header inside a hunk is none."""
    files: list[FileChange] = []
    old = new = 0
    for line in lines:
        if (old > 0 or new > 0) and files:
            old, new = _count(files[-1], line, old, new)
        elif line.startswith(b"diff --git "):
            files.append(FileChange(_path(line)))
        elif files and (hunk := _HUNK.match(line)):
            old, new = (int(part) if part is not None else 1 for part in hunk.groups())
        elif files and line.startswith(b"GIT binary patch"):
            files[-1].binary = True
    return files


def _count(file: FileChange, line: bytes, old: int, new: int) -> tuple[int, int]:
    """What is left of the hunk after this line."""
    if line.startswith(b"+"):
        file.added += 1
        return old, new - 1
    if line.startswith(b"-"):
        file.removed += 1
        return old - 1, new
    if line.startswith(b"\\"):  # No newline at end of file
        return old, new
    return old - 1, new - 1


def _path(line: bytes) -> str:
    """``diff --git a/x b/x``: the second half, whatever is in it."""
    text = line.rstrip(b"\r\n")[len(b"diff --git ") :].decode("utf-8", "backslashreplace")
    quoted = text.rfind(' "b/') if text.endswith('"') else -1
    start = quoted if quoted >= 0 else text.rfind(" b/")
    path = text[start + 1 :].strip('"').removeprefix("b/") if start >= 0 else text
    return clean_line(path, 200)


def stat_lines(files: list[FileChange], limit: int = 12) -> Iterator[str]:
    """One line a file, the first ``limit`` of them."""
    shown = files[:limit]
    width = max((len(file.path) for file in shown), default=0)
    for file in shown:
        figures = "binary" if file.binary else f"+{file.added} -{file.removed}"
        yield f"{file.path.ljust(width)}  {figures}"
    if len(files) > limit:
        yield f"... and {len(files) - limit} more"


def coloured(path: Path) -> Iterator[Text]:
    """The patch line by line, cleaned."""
    with path.open("rb") as file:
        for line in file:
            text = clean(clean_log(line)).rstrip("\n")
            style = next((style for start, style in _STYLES if text.startswith(start)), "")
            yield Text(text, style=style)
