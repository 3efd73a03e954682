"""What somebody wants of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuildWish:
    """What to build. ``without``: parts that are left out; ``if_reachable``: parts that are left out when they cannot
    be had. ``again``: also when the image is there already, built from the same. ``base``: for Tart, the image to begin
    with; empty: the one that this home has pinned. ``cpus`` and ``memory_mib``: those of the machine that tries the
    image out; the state it is frozen in serves jobs of that size."""

    name: str = "tatin"
    profile: str = "full"
    without: tuple[str, ...] = ()
    if_reachable: tuple[str, ...] = ()
    ca_certificates: tuple[Path, ...] = ()
    again: bool = False
    base: str = ""
    cpus: int = 2
    memory_mib: int = 2048
