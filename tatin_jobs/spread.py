"""ext4: a folder whose folders come and go, each laid out in a place of its own.

ext4 puts a new file into the block group of its folder. One without a journal (disks of many virtual machines) passes
over every inode that was freed there in the last minutes, one by one: with a hundred sandboxes made and removed, a new
file took 0.5 to 1 ms. Below a folder marked as the top of a hierarchy (``chattr +T``) each gets a group with room.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path

TOP_OF_HIERARCHY = 0x0002_0000
"""FS_TOPDIR_FL of linux/fs.h, as are the two requests."""
_GET_FLAGS = 0x8008_6601
_SET_FLAGS = 0x4008_6602


def spread(folder: Path) -> None:
    """Mark ``folder`` so; where its file system knows no such mark, nothing happens. Safe to call again."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GET_FLAGS, struct.pack("i", 0)))
            if not flags & TOP_OF_HIERARCHY:
                fcntl.ioctl(fd, _SET_FLAGS, struct.pack("i", flags | TOP_OF_HIERARCHY))
        finally:
            os.close(fd)
