"""A folder that hostile names are written into: by directory descriptor, nothing followed, nothing overwritten.

Only the process that unpacks uses it, and nothing else writes there meanwhile; the flags hold all the same (A02-A06).
"""

from __future__ import annotations

import os

from worker.unpacker.names import NameRefused, fold

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class SafeFolder:
    """Makes folders and new files below ``path``. The first of two names that some file system takes for one wins."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, _FOLDER)
        self._known: dict[tuple[str, ...], str] = {}
        """Folded path -> the last part as it was made, with `/` behind it for a folder."""
        self._at: tuple[str, ...] = ()
        self._fd = os.dup(self._root)
        """The folder that was used last, kept open: files come folder by folder."""
        self.names_bytes = 0

    def close(self) -> None:
        """Close what is open; the folder itself stays."""
        os.close(self._fd)
        os.close(self._root)

    def __len__(self) -> int:
        return len(self._known)

    def make_folder(self, parts: tuple[str, ...]) -> None:
        """Make a folder and those above it; one that is there already is fine.

        Raises:
            NameRefused: a file, or a folder of almost the same name, is in the way.
        """
        self._enter(parts)

    def new_file(self, parts: tuple[str, ...], *, executable: bool) -> int:
        """A descriptor to write a new file through.

        Raises:
            NameRefused: something of the same or almost the same name is there.
        """
        self._enter(parts[:-1])
        self._claim(tuple(fold(part) for part in parts), parts[-1])
        return os.open(parts[-1], _NEW_FILE, 0o755 if executable else 0o644, dir_fd=self._fd)

    def remove_file(self, parts: tuple[str, ...]) -> None:
        """Remove a file that did not come whole."""
        self._enter(parts[:-1])
        os.unlink(parts[-1], dir_fd=self._fd)

    def _enter(self, parts: tuple[str, ...]) -> None:
        """Make ``parts`` the folder at hand, making what is missing."""
        if parts == self._at:
            return
        fd = os.dup(self._root)
        key: tuple[str, ...] = ()
        try:
            for part in parts:
                key = (*key, fold(part))
                fd = self._step(fd, key, part)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._at = fd, parts

    def _step(self, fd: int, key: tuple[str, ...], part: str) -> int:
        """The folder ``part`` of ``fd``, which is closed."""
        if self._claim(key, f"{part}/"):
            os.mkdir(part, 0o755, dir_fd=fd)
        inner = os.open(part, _FOLDER, dir_fd=fd)
        os.close(fd)
        return inner

    def _claim(self, key: tuple[str, ...], name: str) -> bool:
        """Whether ``key`` is new here; False for a folder that was made before."""
        there = self._known.get(key)
        if there is None:
            self._known[key] = name
            self.names_bytes += sum(map(len, key)) + len(name)
            return True
        if there == name and name.endswith("/"):
            return False
        raise NameRefused("the same name as another, or one that some systems take for the same")
