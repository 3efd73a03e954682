"""Files of a guest, written by its warden: as the guest's user, in its tree, whatever a program made of that."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

BLOCK = 1 << 20
MOST_COPIED = 64 * BLOCK
"""Nothing else is done meanwhile."""
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write_all(files: Mapping[str, bytes], mode: int) -> None:
    """path -> bytes, or a folder where the path ends with a slash. Folders are made, what is in the place of a file is
    replaced: never followed, never waited for. Raises OSError."""
    for path, data in files.items():
        folder, _, name = path.rpartition("/")
        if not name:
            make_folder(folder)
            continue
        try:
            replace_file(path, data, mode)
        except FileNotFoundError:
            make_folder(folder)
            replace_file(path, data, mode)


def make_folder(path: str) -> None:
    """With those above it, which are there in most cases."""
    try:
        os.mkdir(path)
    except FileNotFoundError:
        make_folder(path.rpartition("/")[0])
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def copy(source: str, target: str) -> None:
    """A plain file, and no long one, with its times. Raises OSError."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, source)
        if seen.st_size > MOST_COPIED:
            raise OSError(errno.EFBIG, source)
        new = new_file(target, stat.S_IMODE(seen.st_mode))
        try:
            for at in range(0, seen.st_size, BLOCK):
                write(new, os.pread(fd, min(BLOCK, seen.st_size - at), at))
            os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        finally:
            os.close(new)
    finally:
        os.close(fd)


def replace_file(path: str, data: bytes, mode: int) -> None:
    fd = new_file(path, mode)
    try:
        write(fd, data)
    finally:
        os.close(fd)


def new_file(path: str, mode: int) -> int:
    """A descriptor of it, in the place of what was there. Raises OSError."""
    try:
        fd = os.open(path, NEW_FILE, mode)
    except FileExistsError:
        os.unlink(path)
        fd = os.open(path, NEW_FILE, mode)
    os.fchmod(fd, mode)
    return fd


def write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
