"""What the unpacker may take, and where it puts it: shared by the worker and its unpacking child."""

from __future__ import annotations

from dataclasses import dataclass

PATCH_FILE = "changes.patch"
BUNDLE_FILE = "commits.bundle"
MANIFEST_FILE = "manifest.json"
ARTIFACTS = "artifacts"
TRANSCRIPT = "transcript"
LEFT_OUT = "left_out"
"""A member that is no file: names that the guest's side did not send because the files are too long."""


@dataclass(frozen=True)
class CollectLimits:
    """How much is taken from one guest; what goes over is left there and listed."""

    total_bytes: int = 2 * 2**30
    file_bytes: int = 2 * 2**30
    files: int = 100_000
    """Files and folders together."""
    depth: int = 64
    patch_bytes: int = 50 * 10**6
    """A longer patch is kept as an artifact."""
    names_bytes: int = 16 * 2**20
    """All names together: they are what the worker holds in memory."""

    @property
    def stream_bytes(self) -> int:
        """How much is read in all. What is skipped counts as well, or a guest could have us read for ever."""
        return 4 * self.total_bytes + self.files * 2048 + 2**26
