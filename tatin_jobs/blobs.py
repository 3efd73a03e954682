"""Content-addressed files under ``<home>/blobs``: long prompts, inputs, packed repositories. Never in Redis.

A blob's name is the sha256 of its bytes, so writing one again changes nothing, and whoever finds it finds it whole:
it is written aside, synced and renamed. ``prune`` removes those that no job names any more.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import BinaryIO

from tatin_jobs.errors import TatinError
from tatin_jobs.results import sync_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = 2**20


class Blobs:
    """The blobs of one home. Thread-safe, and safe between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add_bytes(self, data: bytes) -> str:
        """Keep ``data``; returns its sha256."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.path(digest).exists():
            draft = self._draft()
            try:
                with draft.open("xb") as out:
                    out.write(data)
                self._publish(draft, digest)
            finally:
                draft.unlink(missing_ok=True)
        return digest

    def add_file(self, path: Path) -> tuple[str, int]:
        """Keep a copy of the file at ``path``; returns its sha256 and size in bytes. The copy is what was hashed, also
        when somebody writes to the file meanwhile.

        Raises:
            OSError: it cannot be read, or the disk is full; then nothing is kept.
        """
        draft = self._draft()
        try:
            with path.open("rb") as source, draft.open("xb") as out:
                digest, size = _copy(source, out)
            self._publish(draft, digest)
        finally:
            draft.unlink(missing_ok=True)
        return digest, size

    def path(self, digest: str) -> Path:
        """Where the blob of this sha256 lies, or would.

        Raises:
            TatinError: it is no sha256; a record cannot name a file elsewhere (A33).
        """
        if _DIGEST.fullmatch(digest) is None:
            raise TatinError(f"{digest[:80]!r} is not the name of a blob.")
        return self.folder / digest

    def read(self, digest: str) -> bytes:
        """The bytes of a blob.

        Raises:
            TatinError: it is not here; says where it would be.
        """
        try:
            return self.path(digest).read_bytes()
        except OSError as error:
            raise TatinError(
                f"The blob {digest[:12]} is not on this host.",
                seen=str(error),
                try_="submit from the worker's host; prompts over 64 KiB, inputs and local repositories do not travel.",
            ) from error

    def _draft(self) -> Path:
        return self.folder / f".new-{os.getpid()}-{secrets.token_hex(6)}"

    def _publish(self, draft: Path, digest: str) -> None:
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(self.path(digest))
        sync_folder(self.folder)


def _copy(source: BinaryIO, out: BinaryIO) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    while block := source.read(_BLOCK):
        digest.update(block)
        size += len(block)
        out.write(block)
    return digest.hexdigest(), size
