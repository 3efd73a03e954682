"""Remove a folder that a guest wrote: any depth, any mode, by directory descriptor, never through a link.

``shutil.rmtree`` recurses (a guest can make 3,000 levels) and stops at a folder of mode 0. Here what lies deeper than
a few levels is moved up to the top first, so few descriptors are open at any time and nothing recurses far.
"""

from __future__ import annotations

import itertools
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

LEVELS = 8
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove ``path`` and all in it; one that is not there is fine. Nothing may be writing in it any more.

    Raises:
        OSError: something could not be removed.
    """
    try:
        parent = os.open(path.parent, _OPEN)
    except FileNotFoundError:
        return
    try:
        _open_up(path.name, parent)
        try:
            top = os.open(path.name, _OPEN, dir_fd=parent)
        except FileNotFoundError:
            return
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(path.name, dir_fd=parent)
    finally:
        os.close(parent)


def _empty(top: int) -> None:
    prefix = f".tatin-{secrets.token_hex(8)}-"  # the guest cannot have made such a name beforehand
    moved: list[str] = []

    def move_up(name: str, folder: int) -> None:
        moved.append(f"{prefix}{next(numbers)}")
        os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)

    numbers = itertools.count()
    _remove_folders(top, _unlink_all_but_folders(top), LEVELS, move_up)
    while moved:
        _remove_folders(top, [moved.pop()], LEVELS, move_up)


def _remove_folders(parent: int, names: list[str], levels: int, move_up: Callable[[str, int], None]) -> None:
    """These and what is so many levels below them; what is deeper is moved up, to be removed later."""
    for name in names:
        if levels == 0:
            move_up(name, parent)
            continue
        folder = os.open(name, _OPEN, dir_fd=parent)
        try:
            _remove_folders(folder, _unlink_all_but_folders(folder), levels - 1, move_up)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=parent)


def _unlink_all_but_folders(folder: int) -> list[str]:
    """Remove what is no folder; the names of the folders, which can be entered and moved now."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if is_folder:
            _open_up(name, folder)
        else:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]


def _open_up(name: str, folder: int) -> None:
    """Give its owner all rights on a folder, if it is one."""
    try:
        found = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=folder)
