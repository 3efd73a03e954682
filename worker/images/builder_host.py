"""What a host needs to build a QEMU image and to try it out, looked at before anything is begun."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from worker.capacity import free_disk_mib
from worker.images.owner import owner_of
from worker.images.steps import SYSTEM_PATH
from worker.images.wish import BuildWish
from worker.sandboxes.qemu.accelerator import find_accelerator

NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "chroot": "coreutils",
}
"""Program -> the Debian package that has it."""
NEEDED_MIB = {"ci": 6_000, "full": 20_000}
OLDEST_MMDEBSTRAP = (0, 8)
"""``--format`` and ``--aptopt`` as used here; 1.3.5 is what was tried."""


def check_host(home: Home, wish: BuildWish) -> None:
    """Raises PartMissing: the image cannot be built here; with what to do."""
    if platform.system() != "Linux":
        raise PartMissing(f"A QEMU image is built on Linux; this is {platform.system()}.")
    if not is_root():
        raise PartMissing("Building an image needs root: it makes a root file system.", try_="the same with sudo -E")
    lacking = sorted(
        {package for program, package in NEEDED.items() if shutil.which(program, path=SYSTEM_PATH) is None}
    )
    if lacking:
        raise PartMissing(
            "Programs that build an image are not on this host.",
            seen=f"missing: {', '.join(lacking)}",
            try_=f"sudo apt-get install {' '.join(lacking)} debian-archive-keyring",
        )
    _check_mmdebstrap()
    _check_qemu(home)
    free, needed = free_disk_mib(home.images), NEEDED_MIB.get(wish.profile, 20_000)
    if free < needed:
        raise PartMissing(
            f"Building this image takes up to {needed} MiB of disk; {free} MiB are free in '{home.images}'.",
            try_="tatin prune, or a TATIN_HOME on a larger disk.",
        )


def _check_qemu(home: Home) -> None:
    """It tries the image out. What works for root is noted in root's own home: others may not open ``/dev/kvm``."""
    with tempfile.TemporaryDirectory(prefix="tatin-accelerator-") as folder:
        find_accelerator(home.machines if owner_of(home).is_me else Path(folder))


def is_root() -> bool:
    """Whether this process may mount."""
    return os.geteuid() == 0


def _check_mmdebstrap() -> None:
    said = ""
    with suppress(OSError, subprocess.TimeoutExpired):
        argv = ["mmdebstrap", "--version"]
        env = {"PATH": SYSTEM_PATH}
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env).stdout.strip()
    found = re.search(r"(\d{1,3})\.(\d{1,3})", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_MMDEBSTRAP:
        oldest = ".".join(map(str, OLDEST_MMDEBSTRAP))
        raise PartMissing(
            f"The mmdebstrap of this host is too old; {oldest} is the oldest.",
            seen=said[:100] or "it does not say its version",
            try_="the mmdebstrap of Debian 12 or newer.",
        )
