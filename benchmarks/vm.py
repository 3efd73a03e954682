"""Virtual machines: ``python -m benchmarks.vm --image NAME [--copies 5] [--megabytes 200]``, on the home of TATIN_HOME.

- Cold boot to SSH, over: copy + resume + hand-over, until a program can be run (p50 of the copies).
- Pull of random data in work/ through Tatin's link, over ``ssh tar`` of OpenSSH from the same guest, in turn.
- What the disks of the copies take that wrote nothing of a job's.

One machine at a time runs, so it can be used on a small host.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tatin_jobs.home import Home
from tatin_jobs.settings import home_from
from worker.capacity import host_arch
from worker.images.store import find_image
from worker.sandboxes.base import GUEST_WORK, SandboxSpec
from worker.sandboxes.qemu import process
from worker.sandboxes.qemu.accelerator import find_accelerator
from worker.sandboxes.qemu.frozen import BOOT_SECONDS, new_disk, write_seed
from worker.sandboxes.qemu.machine import Shape, arguments, disk_of
from worker.sandboxes.qemu.provider import QemuProvider
from worker.sandboxes.qemu.sandbox import QemuSandbox
from worker.ssh import Endpoint, Link, new_key, worker_key

CPUS, MEMORY_MIB, DISK_MIB = 1, 1024, 6000


async def cold_boot_seconds(home: Home, image_name: str) -> float:
    """From the start of QEMU to a program's end over SSH, without any frozen state."""
    image, found = find_image(home, image_name), find_accelerator(home.machines)
    shape = Shape(host_arch(), found.name, found.qemu, image.note.digest, CPUS, MEMORY_MIB)
    key, host = worker_key(home.machines / "ssh_key"), new_key("cold")
    with tempfile.TemporaryDirectory(prefix="tatin-cold-") as text:
        folder = Path(text)
        write_seed(folder / "seed.tar", host, key)
        await new_disk(folder, image.disk)
        started = time.monotonic()
        machine = await process.start("cold", folder, arguments(shape, image, "cold", frozen=None))
        try:
            link = Link(
                "cold", Endpoint("127.0.0.1", await machine.ssh_port(), "agent", host.public), key, machine.death
            )
            await link.connect(BOOT_SECONDS)
            async with link.run(["true"], {}, "/") as program:
                await program.wait()
            taken = time.monotonic() - started
            await link.close()
        finally:
            await machine.kill()
    return taken


async def copy(provider: QemuProvider, home: Home, image: str, number: int) -> tuple[QemuSandbox, float]:
    """A copy, and the seconds until a program has run in it."""
    name = f"tatin-{home.id()}-bench-{number}"
    started = time.monotonic()
    made = await provider.create(SandboxSpec(name, CPUS, MEMORY_MIB, DISK_MIB, image=image))
    await made.run(["true"])
    return made, time.monotonic() - started


async def pull_seconds(sandbox: QemuSandbox) -> float:
    """work/ as a tar, through the link."""
    started = time.monotonic()
    async with sandbox.exec(["tar", "-cf", "-", "."], cwd=GUEST_WORK) as program:
        await program.close_stdin()
        while await program.read("stdout", 2**18):
            pass
        assert await program.wait() == 0
    return time.monotonic() - started


async def openssh_seconds(sandbox: QemuSandbox, key: Path, folder: Path) -> float:
    """The same by OpenSSH's client."""
    endpoint, known = sandbox.link.endpoint, folder / "known_hosts"
    known.write_text(f"[{endpoint.host}]:{endpoint.port} {' '.join(endpoint.host_key.split()[:2])}\n")
    ssh = shutil.which("ssh")
    assert ssh, "the benchmark needs OpenSSH's client"
    options = [f"UserKnownHostsFile={known}", f"IdentityFile={key}", "IdentitiesOnly=yes", "LogLevel=ERROR"]
    argv = [ssh, "-F", "none", "-p", str(endpoint.port), *(part for option in options for part in ("-o", option))]
    started = time.monotonic()
    done = await asyncio.create_subprocess_exec(
        *argv, "agent@127.0.0.1", f"tar -cf - -C {GUEST_WORK} .", stdin=-3, stdout=asyncio.subprocess.PIPE
    )
    assert done.stdout
    while await done.stdout.read(2**18):
        pass
    assert await done.wait() == 0
    return time.monotonic() - started


async def measure(home: Home, image: str, copies: int, megabytes: int) -> None:
    provider = QemuProvider(home, home.id())
    cold = await cold_boot_seconds(home, image)
    print(f"cold boot to a program over SSH    {cold:6.1f} s", flush=True)
    warm, _ = await copy(provider, home, image, 99)  # freezes the state, if there is none
    await provider.destroy(warm.name)
    seconds, disk = [], []
    for number in range(1, copies + 1):
        made, taken = await copy(provider, home, image, number)
        try:
            seconds.append(taken)
            disk.append(disk_of(made.machine.folder).stat().st_blocks * 512 / 2**20)
            if number == copies:
                await _pulls(made, home, megabytes)
        finally:
            await provider.destroy(made.name)
    middle, each = statistics.median(seconds), statistics.mean(disk)
    print(f"copy, resume, hand-over, a program {middle:6.1f} s (p50 of {copies}); cold over it {cold / middle:.1f}")
    print(f"disk of a copy that wrote nothing  {each:6.1f} MiB; of ten {10 * each:.0f} MiB")


async def _pulls(sandbox: QemuSandbox, home: Home, megabytes: int) -> None:
    await sandbox.run(["sh", "-c", f"head -c {megabytes}M /dev/urandom > {GUEST_WORK}/data"], timeout_seconds=600)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            theirs.append(await openssh_seconds(sandbox, home.machines / "ssh_key", Path(folder)))
            ours.append(await pull_seconds(sandbox))
    our, their = statistics.median(ours), statistics.median(theirs)
    speed = f"Tatin {megabytes / our:.1f} MB/s, OpenSSH {megabytes / their:.1f} MB/s"
    print(f"pull of {megabytes} MB                    {speed}   ratio {their / our:.2f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="tatin")
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=200)
    chosen = parser.parse_args(arguments)
    home = home_from(os.environ)
    home.prepare()
    asyncio.run(measure(home, chosen.image, chosen.copies, chosen.megabytes))


if __name__ == "__main__":
    main()
