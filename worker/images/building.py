"""Who builds the image of which kind of sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tatin_jobs.errors import BadInput
from tatin_jobs.home import Home
from worker.images import build_qemu, build_tart
from worker.images.steps import Report
from worker.images.store import Image, images
from worker.images.wish import BuildWish

BUILDERS: Mapping[str, Callable[[Home, BuildWish, Report], Image]] = {
    "qemu": build_qemu.build,
    "tart": build_tart.build,
}


def build_image(sandbox: str, home: Home, wish: BuildWish, report: Report) -> Image:
    """Build the image for sandboxes of this kind, unless it is there; ``report`` gets a line for each step.

    Raises:
        BadInput: there is no such kind, or it needs no image. Otherwise as the builder.
    """
    if sandbox not in BUILDERS:
        raise BadInput(f"No image is built for the sandbox '{sandbox}'.", try_=f"--sandbox {' or '.join(BUILDERS)}")
    return BUILDERS[sandbox](home, wish, report)


def list_images(home: Home) -> Sequence[Image]:
    """All images of this host that Tatin built and that are whole."""
    return [*images(home), *build_tart.images()]
