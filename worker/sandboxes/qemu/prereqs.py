"""What a host needs for QEMU, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from tatin_jobs.models import DEFAULT_IMAGE
from worker.images.store import age_of, find_image
from worker.sandboxes.base import Finding
from worker.sandboxes.qemu.accelerator import find_accelerator


def check(home: Home) -> Sequence[Finding]:
    """Findings for ``doctor``. Without an image nothing is run; else, the first time, guests of a few instructions, for
    up to ten seconds each."""
    image = _image(home)
    return [image, _accelerator(home)] if image.ok else [image]


def _accelerator(home: Home) -> Finding:
    try:
        found = find_accelerator(home.machines)
    except PartMissing as error:
        return Finding("qemu", False, f"{error.what} {error.seen or ''}".strip(), error.try_ or "")
    names = {"tcg": "emulation, many times slower than a machine of its own"}
    seen = f"QEMU {found.qemu} with {names.get(found.name, found.name)}"
    return Finding("qemu", True, f"{seen} ({found.seen})" if found.seen else seen)


def _image(home: Home) -> Finding:
    """The image that a job gets which names none."""
    try:
        note = find_image(home, DEFAULT_IMAGE).note
    except PartMissing as error:
        seen = f"{error.what.rstrip('.')}; {error.seen}" if error.seen else error.what.rstrip(".")
        return Finding("qemu image", False, seen, f"sudo -E {error.try_}")
    missing = [part for part, said in note.parts.items() if said is None]
    seen = f"{note.name} {note.digest[:16]}, {age_of(note) / 86_400:.0f} days old"
    return Finding("qemu image", True, f"{seen}; built without {', '.join(missing)}" if missing else seen)
