"""What to collect, within which limits, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.sandboxes.base import GUEST_HOME, GUEST_REPO, GUEST_RUN

PATCH_FILE = "changes.patch"
BUNDLE_FILE = "commits.bundle"
MANIFEST_FILE = "manifest.json"
ARTIFACTS = "artifacts"
TRANSCRIPT = "transcript"


@dataclass(frozen=True)
class CollectSpec:
    """What to bring back. ``base_commit`` None: nothing was cloned, so there is no patch. ``artifact_globs`` None: all
    of ``work/`` but the repository's own files. Transcripts are absolute paths in the guest. ``home`` and ``run_path``:
    the guest's home and the folder of Tatin's own files there."""

    base_commit: str | None
    repo_path: str = GUEST_REPO
    artifact_globs: Sequence[str] | None = None
    transcript_paths: Sequence[str] = ()
    home: str = GUEST_HOME
    run_path: str = GUEST_RUN

    @property
    def snapshot_path(self) -> str:
        """Where the guest keeps the patch, the bundle and the index that they were made with."""
        return f"{self.run_path}/snapshot"


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


@dataclass(frozen=True)
class Snapshot:
    """The agent's work as git sees it, taken when the agent is dead and before verify. Its figures come from the guest.

    ``patch_missing`` says why there is no ``changes.patch``; ``left_out`` names what git could not put into it.
    """

    files_changed: int = 0
    lines_added: int = 0
    lines_removed: int = 0
    commits: int = 0
    patch_bytes: int = 0
    patch_missing: str | None = None
    left_out: tuple[str, ...] = ()
    gone: bool = False
    """The repository or its .git is no longer there."""

    @property
    def changed(self) -> bool:
        """Whether the repository differs from the clone or has commits of its own."""
        return bool(self.files_changed or self.commits or self.gone)


@dataclass(frozen=True)
class Artifact:
    """One kept file. ``name`` is relative to ``artifacts/``; size and digest were computed on the host."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Collected:
    """What lies in the attempt's folder. ``patch_bytes`` None: no ``changes.patch``."""

    patch_bytes: int | None = None
    bundle_bytes: int | None = None
    artifacts: tuple[Artifact, ...] = ()
    transcripts: tuple[Artifact, ...] = ()
    refused: tuple[str, ...] = field(default=())
    """What was not taken, each with why; names are safe to show. Long lists end in a count."""
    incomplete: str | None = None
