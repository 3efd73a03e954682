"""Who builds the image of which kind of sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tatin_jobs.errors import BadInput
from tatin_jobs.home import Home
from worker.images.build_qemu import build
from worker.images.store import Image
from worker.images.wish import BuildWish

BUILDERS: Mapping[str, Callable[[Home, BuildWish, Callable[[str], None]], Image]] = {"qemu": build}


def build_image(sandbox: str, home: Home, wish: BuildWish, report: Callable[[str], None]) -> Image:
    """Build the image for sandboxes of this kind, unless it is there; ``report`` gets a line for each step.

    Raises:
        BadInput: there is no such kind, or it needs no image. Otherwise as the builder.
    """
    if sandbox not in BUILDERS:
        raise BadInput(f"No image is built for the sandbox '{sandbox}'.", try_=f"--sandbox {' or '.join(BUILDERS)}")
    return BUILDERS[sandbox](home, wish, report)
