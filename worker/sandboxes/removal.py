"""Remove a folder that a guest wrote: any depth, any mode, by directory descriptor, never through a link.

``shutil.rmtree`` recurses (a guest can make 3,000 levels) and stops at a folder of mode 0. Here each folder found is
moved up beside its parent first, so two descriptors are open at any time and nothing recurses.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

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
    number = 0
    prefix = f".tatin-{secrets.token_hex(8)}-"  # the guest cannot have made such a name beforehand
    waiting = _unlink_all_but_folders(top)
    while waiting:
        name = waiting.pop()
        folder = os.open(name, _OPEN, dir_fd=top)
        try:
            for inner in _unlink_all_but_folders(folder):
                number += 1
                moved = f"{prefix}{number}"
                os.rename(inner, moved, src_dir_fd=folder, dst_dir_fd=top)
                waiting.append(moved)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)


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
