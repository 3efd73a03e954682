"""The finished steps of a build that was cut off, each kept under what it was made from: the next goes on from there.

    <home>/images/.building/       the draft: the step that is under way; gone with its build, or removed by the next
    <home>/images/.layers/<key>/   what one step has added to the root file system

A key is a hash over the step's own sources and over the key of the step before, so a changed script, version or
certificate makes that step and all later ones anew. A layer is there whole or not at all. All of them go when the image
is there, and after a day: Debian has moved on by then.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from worker.images.steps import ALONE, SYSTEM_PATH, run_step

KEPT_SECONDS = 24 * 3600.0
DRAFT = ".building"
LAYERS = ".layers"
_MOUNT = """set -e
cd "$1"
lower=$2
shift 2
root=$PWD/.building/root
if [ -n "$lower" ]; then
    mount -t overlay tatin -o "lowerdir=$lower,upperdir=.building/upper,workdir=.building/work" "$root"
else
    mount --bind .building/upper "$root"
fi
"""
"""``$root`` becomes the layers with the draft's own folder over them; what follows is the step's."""


def key_of(*sources: bytes | str) -> str:
    """One hash over all of them, as a layer is called."""
    whole = hashlib.sha256()
    for source in sources:
        data = source.encode() if isinstance(source, str) else source
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:32]


class Layers:
    """The layers of one build in ``images``; used under the lock of the builds."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._folder = images / LAYERS
        self.draft = images / DRAFT
        self._stack: list[str] = []
        self._overlay = True

    def begin(self) -> None:
        """With an empty draft; what a killed build left in it goes, and layers that are too old, or older than the
        host's start: one that went down may have lost what was not on its disk yet."""
        remove(self.draft)
        self.draft.mkdir(mode=0o700)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        oldest = max(time.time() - KEPT_SECONDS, psutil.boot_time())
        for layer in self._folder.iterdir():
            if layer.stat().st_mtime < oldest:
                self._throw_away(layer)
        self._overlay = self._can_overlay()

    @property
    def kind(self) -> str:
        """How layers are kept here; those of one kind are no use to the other."""
        return "overlay" if self._overlay else "copy"

    def has(self, key: str) -> bool:
        return (self._folder / key).is_dir()

    def any(self) -> bool:
        """Whether there is something to go on from."""
        return self._folder.exists() and any(self._folder.iterdir())

    def use(self, key: str) -> None:
        """The next step goes on top of this layer."""
        self._stack.append(key)

    def path(self, key: str) -> Path:
        return self._folder / key

    def keep(self, key: str, made: Path) -> None:
        """``made``, in the draft, is whole and becomes this layer."""
        os.utime(made)
        made.rename(self._folder / key)

    def upper(self) -> Path:
        """The empty folder that takes what the next step writes."""
        upper = self.draft / "upper"
        for folder in (upper, self.draft / "work", self.draft / "root"):
            remove(folder)
            folder.mkdir()
            folder.chmod(0o755)  # what is here becomes `/`
        if not self._overlay and self._stack:
            subprocess.run(["cp", "-a", f"{self._folder / self._stack[-1]}/.", str(upper)], check=True)
        return upper

    def run(self, script: str, arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Run ``script`` with ``$root`` mounted, as ``upper`` has left it. Raises TatinError."""
        lower = ":".join(f"{LAYERS}/{key}" for key in reversed(self._stack)) if self._overlay else ""
        run_step([*ALONE, "/bin/sh", "-c", _MOUNT + script, "sh", str(self._images), lower, *arguments], log, env)

    def clear(self) -> None:
        """The image is there, or is not to be trusted: nothing goes on from these."""
        self._throw_away(self._folder)

    def _throw_away(self, folder: Path) -> None:
        """In one step, for half a layer would count as one; it goes with the draft."""
        folder.rename(self.draft / f"gone-{folder.name}")

    def end(self) -> None:
        remove(self.draft)

    def _can_overlay(self) -> bool:
        """Not on every file system (another overlay: in a container); then each layer is a whole copy."""
        for name in ("one", "upper", "work", "root"):
            (self.draft / name).mkdir()
        script = 'cd "$1" && mount -t overlay tatin -o lowerdir=one,upperdir=upper,workdir=work root'
        argv = [*ALONE, "/bin/sh", "-c", script, "sh", str(self.draft)]
        env = {"PATH": SYSTEM_PATH}
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=env).returncode == 0


def remove(folder: Path) -> None:
    """Never through a mount, of which none is left once its namespace is gone."""
    if folder.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
