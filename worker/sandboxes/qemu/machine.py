"""The command line of QEMU for one machine. What stands here must be the same when a state is frozen and when it is
loaded: devices, their order, memory and CPUs; and for one state it is, since both come from one ``Shape``.

What a guest is given: a disk, a seed disk with its keys, a network that reaches nothing (``restrict=on``), a way in for
SSH on the host's loopback, randomness. No display, no sound, no USB, no shared folder, no monitor but ours.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from worker.images.store import Image

PROGRAMS = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
MACHINES = {"amd64": "q35", "arm64": "virt"}
CPU_COUNTS = (1, 2, 4, 8, 16, 32, 64)
TRANSLATED_MIB = 256
"""What an emulated machine may use for translated code, beside the guest's memory."""


@dataclass(frozen=True)
class Shape:
    """What a frozen state fits to and nothing else."""

    arch: str
    accelerator: str
    qemu: str
    image: str
    cpus: int
    memory_mib: int

    @property
    def key(self) -> str:
        """As a folder's name."""
        parts = (self.arch, self.accelerator, self.qemu, self.image[:16], f"{self.cpus}cpu", f"{self.memory_mib}mib")
        return "-".join(parts)


def cpus_of_shape(cpus: int) -> int:
    """CPUs rounded up to a count that others ask for too, so that they share a frozen state."""
    return next((count for count in CPU_COUNTS if count >= cpus), cpus)


def arguments(shape: Shape, image: Image, name: str, *, frozen: int | None, console: bool = False) -> list[str]:
    """QEMU's arguments, for a process that runs in the folder with ``disk.qcow2`` and ``seed.tar``.

    ``frozen``: the descriptor of a state to go on from; None: boot. ``console``: of a machine whose state is to be
    frozen: keep what the kernel prints, in ``console.log``; a guest of a job has none, for it could fill the host's
    disk (A68).
    """
    emulated = shape.accelerator == "tcg"
    acceleration = f"tcg,thread=multi,tb-size={TRANSLATED_MIB}" if emulated else shape.accelerator
    return [
        PROGRAMS[shape.arch],
        *("-name", name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", MACHINES[shape.arch], "-accel", acceleration, "-cpu", "max"),
        *("-smp", str(shape.cpus), "-m", str(shape.memory_mib)),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _kernel_line(shape, emulated)),
        # An error of the host's disk is the guest's to see; by default QEMU would stop the machine and wait.
        *("-drive", "if=none,id=disk,file=disk.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=report"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-drive", "if=none,id=seed,file=seed.tar,format=raw,read-only=on"),
        *("-device", "virtio-blk-pci,drive=seed"),
        *("-netdev", "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-object", "rng-builtin,id=random", "-device", "virtio-rng-pci,rng=random"),
        *("-device", "vmgenid,guid=auto"),
        *("-chardev", "file,id=console,path=console.log" if console else "null,id=console"),
        *(("-device", "isa-serial,chardev=console") if shape.arch == "amd64" else ("-serial", "chardev:console")),
        *("-chardev", "socket,id=qmp,path=qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *(() if frozen is None else ("-incoming", f"fd:{frozen}")),
        # The frozen state is written by a program that QEMU starts; a guest that runs a job, or has run one and is
        # started again from its disk, can make it start none.
        *(() if console else _confined()),
    ]


def _kernel_line(shape: Shape, emulated: bool) -> str:
    console = "ttyS0" if shape.arch == "amd64" else "ttyAMA0"
    line = f"root=/dev/vda rw quiet console={console} systemd.show_status=no panic=-1"
    return f"{line} mitigations=off" if emulated else line  # nothing is speculated on there


def _confined() -> tuple[str, ...]:
    """QEMU's own system call filter, where there is one."""
    if platform.system() != "Linux":
        return ()
    return ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


def disk_of(folder: Path) -> Path:
    """The disk in a machine's folder."""
    return folder / "disk.qcow2"
