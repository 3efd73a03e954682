"""Where the data folders lie that are shipped beside the code: ``provision`` (templates) and ``packer`` (images).

In a checkout they are at its root, in a wheel in ``tatin_jobs/_data/``.
"""

from __future__ import annotations

from pathlib import Path

from tatin_jobs.errors import PartMissing

_PACKAGE = Path(__file__).parent


def provision_folder() -> Path:
    """The Jinja2 templates that are rendered into a guest. Raises PartMissing."""
    return _folder("provision")


def packer_folder() -> Path:
    """What the images are built from. Raises PartMissing."""
    return _folder("packer")


def _folder(name: str, package: Path = _PACKAGE) -> Path:
    # The wheel's place first: what lies beside an installed package is somebody else's.
    for folder in (package / "_data" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise PartMissing(
        f"Tatin's own folder '{name}' is not where it should be.",
        seen=f"neither in {package / '_data'} nor in {package.parent}",
        try_="install Tatin again, or run it from a whole checkout.",
    )
