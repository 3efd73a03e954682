"""What somebody wants of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuildWish:
    """What to build. ``again``: also when the image is there already, built from the same. ``base``: for Tart, the
    image to begin with; empty: the one that this home has pinned."""

    name: str = "tatin"
    profile: str = "full"
    without: tuple[str, ...] = ()
    ca_certificates: tuple[Path, ...] = ()
    again: bool = False
    base: str = ""
