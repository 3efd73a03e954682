"""The QEMU provider: a virtual machine for each sandbox, copied from a frozen booted state; KVM, HVF or emulated."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from tatin_jobs.errors import DiskFull, PartMissing, SandboxError
from tatin_jobs.home import Home
from worker.capacity import host_arch, host_memory_mib
from worker.images.store import Image, find_image, image_at
from worker.sandboxes.base import Finding, SandboxProvider, SandboxSpec
from worker.sandboxes.names import is_ours
from worker.sandboxes.qemu import process, qmp
from worker.sandboxes.qemu.accelerator import Accelerator, find_accelerator
from worker.sandboxes.qemu.frozen import (
    BOOT_SECONDS,
    CAPABILITIES,
    GONE_SECONDS,
    Frozen,
    FrozenStates,
    new_disk,
    open_state,
)
from worker.sandboxes.qemu.machine import Shape, arguments, cpus_of_shape, disk_of
from worker.sandboxes.qemu.prereqs import check
from worker.sandboxes.qemu.sandbox import QemuSandbox
from worker.sandboxes.removal import remove_tree
from worker.ssh import Endpoint, Link, worker_key

REACH_SECONDS = 120.0
ADOPT_SECONDS = 30.0
LEAST_MEMORY_MIB = 384


class QemuProvider(SandboxProvider):
    """Sandboxes are folders under ``<home>/sandboxes``, each with one QEMU while it lives."""

    kind = "qemu"
    capabilities = CAPABILITIES
    own_image: ClassVar[bool] = True

    def __init__(self, home: Home, home_id: str) -> None:
        self._home = home
        self._home_id = home_id
        self._frozen = FrozenStates(home)
        self._live: dict[str, QemuSandbox] = {}
        self._accelerator: Accelerator | None = None

    async def create(self, spec: SandboxSpec) -> QemuSandbox:
        self._check_name(spec.name)
        image = self._image(spec)
        shape = await self._shape(spec, image)
        folder = self._home.sandboxes / spec.name
        try:
            folder.mkdir(mode=0o700)
            try:
                return await self._resume(spec, shape, image, folder)
            except _NotLoaded:  # a state that this host no longer loads is made anew, once
                await self._frozen.forget(shape)
                await self._clear(spec.name)
                folder.mkdir(mode=0o700)
                return await self._resume(spec, shape, image, folder)
        except OSError as error:
            await self._clear(spec.name)
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"The host has no room for sandbox '{spec.name}'.", seen=str(error)) from error
            raise SandboxError(f"Sandbox '{spec.name}' could not be made.", seen=str(error)) from error
        except BaseException:
            await asyncio.shield(self._clear(spec.name))
            raise

    async def adopt(self, name: str, seconds: float = ADOPT_SECONDS) -> QemuSandbox:
        self._check_name(name)
        machine, note = process.Machine.find(name, self._home.sandboxes / name)
        if machine is None or "host_key" not in note:
            raise SandboxError(f"Sandbox '{name}' is not alive, or was never finished.")
        sandbox = self._sandbox(machine, str(note["host_key"]), int(note["port"]))
        sandbox.handed_over = int(note["handed_over"])
        sandbox.image, sandbox.parts = str(note.get("made_from", "")), note.get("parts", {})
        await sandbox.reach(seconds)
        self._live[name] = sandbox
        return sandbox

    async def stop(self, name: str) -> None:
        sandbox = self._live.pop(name, None) or await self.adopt(name)
        self._live.pop(name, None)
        await sandbox.write_out()
        await sandbox.close()
        await sandbox.machine.kill()

    async def start(self, name: str) -> QemuSandbox:
        self._check_name(name)
        folder = self._home.sandboxes / name
        machine, note = process.Machine.find(name, folder)
        if machine is not None:
            return await self.adopt(name)
        try:
            image = image_at(self._home.images / str(note["image_name"]) / str(note["image"]))
            found = await self._accelerated()
            cpus, memory = int(note["cpus"]), int(note["memory_mib"])
        except (KeyError, ValueError, PartMissing) as error:
            raise SandboxError(f"Sandbox '{name}' is not there to be started.", seen=str(error)) from error
        shape = Shape(host_arch(), found.name, found.qemu, image.note.digest, cpus, memory)
        machine = await process.start(name, folder, arguments(shape, image, name, frozen=None))
        try:
            machine.note(port=await machine.ssh_port(), handed_over=0)
            return await self.adopt(name, BOOT_SECONDS)
        except BaseException:
            await machine.kill()
            raise

    async def list(self) -> Sequence[str]:
        await self._frozen.clear_drafts()
        try:
            return sorted(name for name in os.listdir(self._home.sandboxes) if is_ours(name, self._home_id))
        except OSError as error:
            raise SandboxError(f"'{self._home.sandboxes}' cannot be read.", seen=str(error)) from error

    async def destroy(self, name: str) -> None:
        self._check_name(name)
        sandbox = self._live.pop(name, None)
        if sandbox is not None:
            await sandbox.close()
            await sandbox.machine.kill()  # by the handle that this process has: a child is to be waited for
        await self._clear(name)
        if (self._home.sandboxes / name).exists():
            raise SandboxError(f"Sandbox '{name}' is still there.")

    def check(self) -> Sequence[Finding]:
        return check(self._home)

    # Inside

    def _check_name(self, name: str) -> None:
        if not is_ours(name, self._home_id):
            raise SandboxError(f"'{name}' is no sandbox of this home; it is left alone.")

    def _image(self, spec: SandboxSpec) -> Image:
        try:
            image = find_image(self._home, spec.image)
        except PartMissing as error:
            raise SandboxError(error.what, seen=error.seen, try_=error.try_) from error
        if spec.disk_mib < image.note.disk_mib:
            raise SandboxError(
                f"The image '{spec.image}' needs {image.note.disk_mib} MiB of disk, and the job has {spec.disk_mib}.",
                try_="ask for more with resources.disk.",
            )
        if spec.memory_mib < LEAST_MEMORY_MIB:
            raise SandboxError(
                f"A machine needs {LEAST_MEMORY_MIB} MiB of memory, and the job has {spec.memory_mib}.",
                try_="ask for more with resources.memory.",
            )
        if spec.memory_mib > host_memory_mib():
            raise SandboxError(
                f"The job asks for {spec.memory_mib} MiB of memory, and this host has {host_memory_mib()}.",
                try_="ask for less with resources.memory.",
            )
        return image

    async def _shape(self, spec: SandboxSpec, image: Image) -> Shape:
        found = await self._accelerated()
        cpus = cpus_of_shape(spec.cpus)
        return Shape(host_arch(), found.name, found.qemu, image.note.digest, cpus, spec.memory_mib)

    async def _accelerated(self) -> Accelerator:
        if self._accelerator is None:
            try:
                self._accelerator = await asyncio.to_thread(find_accelerator, self._home.machines)
            except PartMissing as error:
                raise SandboxError(error.what, seen=error.seen, try_=error.try_) from error
        return self._accelerator

    async def _resume(self, spec: SandboxSpec, shape: Shape, image: Image, folder: Path) -> QemuSandbox:
        key = await asyncio.to_thread(worker_key, self._home.machines / "ssh_key")
        frozen = await self._frozen.get(shape, image, key)
        await new_disk(folder, disk_of(frozen.folder))
        (folder / "seed.tar").symlink_to(frozen.folder / "seed.tar")
        machine = await self._load(spec.name, shape, image, folder, frozen)
        try:
            machine.note(
                image=image.folder.name,
                image_name=image.note.name,
                made_from=f"{image.note.name}@{image.note.digest[:16]}",
                parts=dict(image.note.parts),
                frozen=shape.key,
                cpus=shape.cpus,
                memory_mib=shape.memory_mib,
            )
            port = await machine.ssh_port()
            sandbox = self._sandbox(machine, frozen.host_key, port)
            await self._prepare(sandbox, spec, image, started=time.monotonic())
        except BaseException:
            await machine.kill()
            raise
        machine.note(port=port, host_key=sandbox.link.endpoint.host_key, handed_over=sandbox.handed_over)
        sandbox.image, sandbox.parts = f"{image.note.name}@{image.note.digest[:16]}", image.note.parts
        self._live[spec.name] = sandbox
        return sandbox

    async def _load(self, name: str, shape: Shape, image: Image, folder: Path, frozen: Frozen) -> process.Machine:
        fds = open_state(frozen)
        try:
            machine = await process.start(name, folder, arguments(shape, image, name, frozen=fds[0]), fds)
        except process.Killed:
            raise
        except SandboxError as error:
            raise _NotLoaded(error.what, seen=error.seen) from error
        finally:
            for fd in fds:
                os.close(fd)
        try:
            await machine.running()
        except SandboxError as error:
            killed = await machine.has_ended(GONE_SECONDS) and machine.was_killed
            await machine.kill()
            kind = process.Killed if killed else _NotLoaded
            raise kind(error.what, seen=machine.death() or error.seen) from error
        return machine

    async def _prepare(self, sandbox: QemuSandbox, spec: SandboxSpec, image: Image, started: float) -> None:
        """A disk as large as was asked for, and nothing in the guest that another has too."""
        grow = spec.disk_mib > image.note.disk_mib
        if grow:
            async with qmp.connect(sandbox.name, sandbox.machine.folder) as control:
                await control.ask("block_resize", {"device": "disk", "size": spec.disk_mib * 2**20})
        try:
            await sandbox.link.connect(REACH_SECONDS)
            await sandbox.hand_over(grow=grow)
        except SandboxError:
            await sandbox.close()
            raise

    def _sandbox(self, machine: process.Machine, host_key: str, port: int) -> QemuSandbox:
        key = worker_key(self._home.machines / "ssh_key")
        link = Link(machine.name, Endpoint("127.0.0.1", port, "agent", host_key), key, machine.death)
        return QemuSandbox(machine, link)

    async def _clear(self, name: str) -> None:
        """End what runs of it and remove its folder; fine on half a sandbox and on none."""
        folder = self._home.sandboxes / name
        machine, _ = process.Machine.find(name, folder)
        if machine is not None:
            await machine.kill()
        await asyncio.to_thread(process.end_unnoted, name)
        try:
            await asyncio.to_thread(remove_tree, folder)
        except OSError as error:
            raise SandboxError(f"Sandbox '{name}' cannot be removed.", seen=str(error)) from error


class _NotLoaded(SandboxError):
    """QEMU does not go on from a frozen state."""

    def __init__(self, what: str, **more: Any) -> None:
        super().__init__(what, **more)
