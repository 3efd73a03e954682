"""What is uncommitted in a local repository and stays behind, without what goes along another way or is Tatin's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from tatin_jobs.results import read_result

_MANY = 1000
"""A new folder with more in it is named without a look at all of it."""


def left_behind(folder: Path, paths: Sequence[str], along: Collection[Path]) -> list[str]:
    """Those of ``paths``, as git prints them (a new folder with a slash at its end), that a person should know of.
    ``along``: files that go with the job, and its own file. Fetched results are nobody's work to commit."""
    known = {path.resolve() for path in along}
    return [path for path in paths if not _is_all_known(folder / path, known)]


def _is_all_known(path: Path, known: Collection[Path]) -> bool:
    try:
        return _is_known(path, known, [_MANY])
    except OSError:  # a folder that cannot be read
        return False


def _is_known(path: Path, known: Collection[Path], left: list[int]) -> bool:
    """``left``: how many more may be looked at."""
    left[0] -= 1
    if left[0] < 0:
        return False
    if path.is_symlink() or not path.is_dir():
        return path.resolve() in known
    if read_result(path) is not None:
        return True
    return all(_is_known(inner, known, left) for inner in path.iterdir())
