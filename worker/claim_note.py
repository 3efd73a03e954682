"""The nonces of a worker's last claims, noted for the worker that comes after its death: what it was given, and did not
live to write into its journal, is asked for again by them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_NONCE_BYTES = 12
_WIDTH = 2 * _NONCE_BYTES


def new_nonce() -> str:
    """For one claim; as long as a note has room for."""
    return secrets.token_hex(_NONCE_BYTES)


class ClaimNote:
    """The file ``path``: the nonce of the newest claim, and of the newest that gave a job."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, newest: str, fruitful: str) -> None:
        """Over what is there, all at once and always as long: whoever is killed here leaves the old nonces or the new,
        where a file that is emptied first could be left with none. ``fruitful`` may be empty. Raises OSError."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, f"{newest:{_WIDTH}}\n{fruitful:{_WIDTH}}\n".encode(), 0)
        finally:
            os.close(fd)

    def read(self) -> list[str]:
        """The nonces; none where no worker has claimed yet. Raises OSError."""
        try:
            return self._path.read_text().split()
        except FileNotFoundError:
            return []
