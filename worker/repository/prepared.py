"""What is ready to go into a guest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PreparedRepo:
    """A bare repository of one commit, tarred. ``origin`` is the address to show for it, which holds no credentials;
    None for a local path of the submitter."""

    tar: Path
    commit: str
    origin: str | None
