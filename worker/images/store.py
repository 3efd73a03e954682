"""The QEMU images of one home.

    <home>/images/<name>/<digest>/   disk.qcow2, kernel, initrd, packages.txt, image.json
    <home>/images/<name>/current     a link to the digest that new sandboxes are made from

A build replaces the link in one step, so an image is there whole or not at all, and what runs keeps its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from tatin_jobs.models import DEFAULT_IMAGE, Frozen
from tatin_jobs.names import IMAGE
from tatin_jobs.results import sync_folder
from worker.capacity import host_arch

CURRENT = "current"
NOTE = "image.json"
FILES = ("disk.qcow2", "kernel", "initrd")


class ImageNote(Frozen):
    """``image.json``. ``parts`` maps each part to what it said when asked for its version; None: left out by the
    builder, or not to be had. ``tools`` maps each tool of a part, and of the system, to the same; ``remarks`` a part to
    why it is not in, or to what of it was not checked. ``build_key`` is what it was built from; ``digest`` is the
    SHA-256 of the disk."""

    format: int = 1
    name: str
    digest: str
    build_key: str
    profile: str
    arch: str
    debian: str
    disk_mib: int
    built_at: datetime
    parts: Mapping[str, str | None]
    tools: Mapping[str, str] = {}
    remarks: Mapping[str, str] = {}


@dataclass(frozen=True)
class Image:
    """One image on this host."""

    note: ImageNote
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def size_bytes(self) -> int:
        """What it takes on the disk."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir() if path.is_file())


def find_image(home: Home, name: str) -> Image:
    """The image that new sandboxes of ``name`` are made from.

    Raises:
        PartMissing: there is none, it is half there, or it is for another kind of CPU.
    """
    folder = home.images / name / CURRENT
    how = f"tatin image build --sandbox qemu{'' if name == DEFAULT_IMAGE else f' --name {name}'}"
    if IMAGE.fullmatch(name) is None or not folder.exists():
        others = ", ".join(f"'{image.note.name}'" for image in images(home)[:5])
        seen = f"it has {others}" if others else None
        raise PartMissing(f"There is no image '{name}' on this host.", seen=seen, try_=how)
    return image_at(folder, f"{how} --again")


def image_at(folder: Path, how: str = "tatin image build --again") -> Image:
    """The image in this folder. Raises PartMissing: as ``find_image``; ``how`` is what to try."""
    folder = folder.resolve()
    try:
        note = ImageNote.model_validate_json((folder / NOTE).read_bytes())
    except (OSError, ValidationError) as error:
        seen = f"'{folder / NOTE}': {str(error).splitlines()[0]}"
        raise PartMissing(f"The image '{folder.parent.name}' is not whole.", seen=seen, try_=how) from error
    lacking = [file for file in FILES if not (folder / file).is_file()]
    if lacking:
        raise PartMissing(
            f"The image '{note.name}' is not whole.", seen=f"'{folder}' lacks {', '.join(lacking)}", try_=how
        )
    if note.arch != host_arch():
        raise PartMissing(f"The image '{note.name}' is for {note.arch}; this host is {host_arch()}.", try_=how)
    return Image(note, folder)


def images(home: Home) -> Sequence[Image]:
    """All images that are whole, by name."""
    found = []
    for name in _names(home):
        with suppress(PartMissing):
            found.append(find_image(home, name))
    return found


def unusable(home: Home) -> Sequence[PartMissing]:
    """Of each image that is there and cannot be used, why."""
    errors = []
    for name in _names(home):
        try:
            find_image(home, name)
        except PartMissing as error:
            errors.append(error)
    return errors


def _names(home: Home) -> Sequence[str]:
    return sorted(link.parent.name for link in home.images.glob(f"*/{CURRENT}"))


def publish(home: Home, draft: Path, note: ImageNote, try_out: Callable[[Image], None] = lambda _image: None) -> Image:
    """Make the finished ``draft`` the image that new sandboxes get; older digests that no sandbox uses go.

    ``try_out`` gets it when it is where it will stay; what it raises goes through, and the image that was there stays.
    """
    folder = home.images / note.name
    folder.mkdir(mode=0o700, exist_ok=True)
    (draft / NOTE).write_text(json.dumps(note.model_dump(mode="json"), indent=1) + "\n")
    target = folder / note.digest[:16]
    shutil.rmtree(target, ignore_errors=True)
    _sync(draft)
    draft.rename(target)
    try:
        try_out(image_at(target))
    except BaseException:
        sweep(home, note.name)
        raise
    link = folder / f".{CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(folder / CURRENT)
    sweep(home, note.name)
    return find_image(home, note.name)


def _sync(folder: Path) -> None:
    """What the link will lead to is on the disk, also when the host goes down right after."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def sweep(home: Home, name: str) -> None:
    """Remove the digests of this image that are neither current nor a sandbox's, with the states that machines of them
    were frozen in, and what a killed build left."""
    folder = home.images / name
    used = _used_digests(home)
    with suppress(OSError):
        used.add((folder / CURRENT).readlink().name)
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink() and path.name not in used:
            shutil.rmtree(path, ignore_errors=True)
            for state in (home.machines / "frozen").glob(f"*-{path.name}-*"):
                shutil.rmtree(state, ignore_errors=True)
    for link in folder.glob(f".{CURRENT}-*"):
        link.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()  # of a build that was cut off before there was any image of the name


def _used_digests(home: Home) -> set[str]:
    """Digests that sandboxes of this home stand on."""
    used = set()
    for path in home.sandboxes.glob("*/machine.json"):
        try:
            used.add(str(json.loads(path.read_text())["image"]))
        except (OSError, ValueError, KeyError):
            continue
    return used


def age_of(note: ImageNote) -> float:
    """Seconds since it was built."""
    return (datetime.now(UTC) - note.built_at).total_seconds()


def version_in(said: str) -> str:
    """The version in what a program says of it: ``1.24.4`` of ``go version go1.24.4 linux/amd64``."""
    found = re.search(r"\d+(?:\.\d+)+[\w.-]*", said)
    return found[0] if found else said[:40]
