"""A prepared repository that is small: as the few files that it is, for sandboxes that are quicker with such."""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tatin_jobs.barerepo import usable_branch

SMALL_TAR_BYTES = 40_000
"""A longer tar is not looked into: no sandbox has a shorter way for as much."""
_HEADS = "refs/heads/"


@functools.lru_cache(maxsize=8)
def as_files(tar: Path, commit: str) -> Mapping[str, bytes] | None:
    """The files of the bare repository in ``tar``, by name; kept, since the jobs of a batch ask for the same.

    Its branch is one of them, though it is packed too: with no file in ``refs`` there would be no such folder, and git
    asks for one. None: it is not small, its branch has a folder in its name, or it is not as we make them.

    Raises:
        FileNotFoundError: the tar is gone.
    """
    if tar.stat().st_size > SMALL_TAR_BYTES:
        return None
    try:
        with tarfile.open(tar, "r:") as source:
            members = [member for member in source if not member.isdir()]
            if not all(map(_is_plain, members)):
                return None
            files = {member.name: file.read() for member in members if (file := source.extractfile(member))}
    except tarfile.TarError:
        return None
    branch = files.get("HEAD", b"").decode(errors="replace").removeprefix(f"ref: {_HEADS}").rstrip("\n")
    if "/" in branch or usable_branch(branch) != branch:
        return None
    return {**files, f"{_HEADS}{branch}": f"{commit}\n".encode()}


def _is_plain(member: tarfile.TarInfo) -> bool:
    inside = not member.name.startswith("/") and ".." not in member.name.split("/")
    return member.type == tarfile.REGTYPE and not member.issparse() and inside
