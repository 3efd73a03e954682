"""What to collect, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.collect.guest_files import SNAPSHOT_NAME
from worker.sandboxes.base import GUEST_HOME, GUEST_REPO, GUEST_RUN


@dataclass(frozen=True)
class CollectSpec:
    """What to bring back. ``base_commit`` None: nothing was cloned, so there is no patch. ``artifact_globs`` None: all
    of ``work/`` but the repository's own files. Transcripts are absolute paths in the guest. ``home`` and ``run_path``:
    the guest's home and the folder of Tatin's own files there. ``base_tar``: the prepared repository on the host; with
    it there is a patch even when the agent removed or broke the guest's ``.git``."""

    base_commit: str | None
    repo_path: str = GUEST_REPO
    artifact_globs: Sequence[str] | None = None
    transcript_paths: Sequence[str] = ()
    home: str = GUEST_HOME
    run_path: str = GUEST_RUN
    base_tar: Path | None = None

    @property
    def repo_below_home(self) -> str:
        """The repository as ``./path`` below the home."""
        return f"./{self.repo_path.removeprefix(f'{self.home}/')}"

    @property
    def snapshot_path(self) -> str:
        """Where the guest keeps the patch, the bundle and the index that they were made with."""
        return f"{self.run_path}/{SNAPSHOT_NAME}"


@dataclass(frozen=True)
class Snapshot:
    """The agent's work as git sees it, taken when the agent is dead and before verify. Its figures come from the guest.

    ``patch_missing`` says why there is no ``changes.patch``; ``left_out`` names what git could not put into it.
    ``patch``: the patch itself, where it is all that is kept of the guest; None: ``collect`` fetches what there is.
    """

    files_changed: int = 0
    lines_added: int = 0
    lines_removed: int = 0
    commits: int = 0
    patch_bytes: int = 0
    patch_missing: str | None = None
    left_out: tuple[str, ...] = ()
    patch: bytes | None = field(default=None, repr=False)

    @property
    def changed(self) -> bool:
        """Whether the repository differs from the clone or has commits of its own; also True when nobody can tell."""
        return bool(self.files_changed or self.commits or self.patch_missing)


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
