"""Boots a new QEMU image as the provider would for a job, in a home of its own in the build's draft, and has the smoke
test ask it.

That is done by a process of its own, which ends with the build, however that ends, and its machine with it. The state
that the machine was frozen in then serves the jobs of its size: their first need not boot.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from tatin_jobs.errors import TatinError
from tatin_jobs.home import Home
from worker.images.owner import owner_of
from worker.images.smoke import smoke_test
from worker.images.steps import ALONE, run_step
from worker.images.store import CURRENT, Image, find_image
from worker.images.wish import BuildWish
from worker.sandboxes.base import SandboxSpec
from worker.sandboxes.names import sandbox_name
from worker.sandboxes.qemu.frozen import take_over
from worker.sandboxes.qemu.provider import QemuProvider
from worker.ssh import worker_key

LARGER_MIB = 1024
"""A job's disk is larger than the image's, and grows when the machine is handed over."""


def try_out(home: Home, image: Image, wish: BuildWish, parts: Sequence[str], draft: Path) -> None:
    """Boot the image, which need not be anybody's current one, and ask it.

    Raises:
        TatinError: it does not boot, or is not what was wanted.
    """
    own, owner = Home(draft / "home"), owner_of(home)
    own.root.mkdir(mode=0o700)
    owner.own(own.root)
    draft.chmod(0o711)
    with owner.acting():
        own.prepare()
        (own.images / image.note.name).mkdir()
        (own.images / image.note.name / CURRENT).symlink_to(image.folder.resolve())
        worker_key(home.machines / "ssh_key")
        (own.machines / "ssh_key").symlink_to((home.machines / "ssh_key").resolve())
    argv = [sys.executable, "-m", __spec__.name, str(own.root), image.note.name, str(wish.cpus), str(wish.memory_mib)]
    run_step([*ALONE, *owner.command(), *argv, *parts], draft / "smoke test.log", dict(os.environ))
    with owner.acting():
        take_over(own, home)


async def _ask(home: Home, name: str, cpus: int, memory_mib: int, parts: Sequence[str]) -> None:
    provider = QemuProvider(home, home.id())
    sandbox = sandbox_name(home.id(), f"image-{secrets.token_hex(5)}", 1)
    disk_mib = find_image(home, name).note.disk_mib + LARGER_MIB
    spec = SandboxSpec(name=sandbox, cpus=cpus, memory_mib=memory_mib, disk_mib=disk_mib, image=name)
    try:
        await smoke_test(await provider.create(spec), parts)
    finally:
        await provider.destroy(sandbox)


def main(arguments: Sequence[str]) -> int:
    """HOME NAME CPUS MEMORY PART...: 0 when the image is fit; else what is wrong is printed."""
    home, name, cpus, memory_mib, *parts = arguments
    try:
        asyncio.run(_ask(Home(Path(home)), name, int(cpus), int(memory_mib), parts))
    except TatinError as error:
        print(f"{error.what} {error.seen or ''}".strip())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
