"""Frozen states: a machine booted once, stopped, and kept with its memory, so that the next of its shape goes on from
there instead of booting (emulated: seconds instead of a minute).

    <home>/machines/frozen/<shape>/   disk.qcow2 (an overlay of the image), state (the memory), seed.tar, frozen.json

A state is whole or not there. It has the worker's key in it, so the first connection to its copies is to nobody else:
over the copy's own forwarded port, with the host key that is in the state and is renewed at once.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tatin_jobs.terminal import clean_line
from worker.images.store import Image
from worker.sandboxes import host_process
from worker.sandboxes.base import Capabilities
from worker.sandboxes.qemu import process, qmp
from worker.sandboxes.qemu.lock import let_go, take
from worker.sandboxes.qemu.machine import Shape, arguments, disk_of
from worker.sandboxes.qemu.waiting import until
from worker.sandboxes.remote import RemoteSandbox
from worker.ssh import Endpoint, KeyPair, Link, new_key

BOOT_SECONDS = 600.0
"""A cold boot takes 20 to 60 s under emulation, more beside others."""
SETTLE_SECONDS = 180
SAVE_SECONDS = 300.0
GONE_SECONDS = 1.0
"""How long after its last word it is waited for what ended a QEMU."""
KEPT = 4
"""States on the disk at once, some 300 MB each; the longest unused goes."""
SEED_BYTES = 64 * 1024
DRAFT = ".draft-"
LOCK = ".lock-"
NOTE = "frozen.json"
CAPABILITIES = Capabilities(separate_kernel=True, egress_control=True, survives_worker=True, snapshot=True, sudo=True)
_WARM_UP = "python3 -c 'import json, tarfile'; git --version; tar --version; sudo -n true; find /usr/bin -name x"
"""What every job needs at once: it is then in the memory that is kept."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frozen:
    """One state. ``host_key`` is what its copies answer with until they are handed over."""

    folder: Path
    host_key: str

    @property
    def state(self) -> Path:
        return self.folder / "state"


class _GuestEnded(SandboxError):
    """The guest itself went down before its state was kept: an emulated kernel was seen to panic as it booted."""


class FrozenStates:
    """The states of one home; used in the event loop only."""

    def __init__(self, home: Home) -> None:
        self._root = home.machines / "frozen"
        self._sandboxes = home.sandboxes

    async def get(self, shape: Shape, image: Image, key: KeyPair) -> Frozen:
        """The state of this shape; made, by booting the machine, where there is none.

        Raises:
            SandboxError: it does not boot, or its state cannot be saved.
        """
        async with self._alone(shape.key):
            folder = self._root / shape.key
            if not _is_whole(folder):
                await self._make(shape, image, key, folder)
            os.utime(folder)
            await asyncio.to_thread(self._evict, folder)
            return Frozen(folder, json.loads((folder / NOTE).read_text())["host_key"])

    async def forget(self, shape: Shape) -> None:
        """A state that does not load is made anew by the next who asks."""
        async with self._alone(shape.key):
            await asyncio.to_thread(shutil.rmtree, self._root / shape.key, ignore_errors=True)

    async def clear_drafts(self) -> None:
        """What a worker that died while it made a state has left: its machine and its lock too."""
        left = [path.name.removeprefix(prefix) for prefix in (DRAFT, LOCK) for path in self._root.glob(f"{prefix}*")]
        for key in set(left):
            lock = take(self._root / f"{LOCK}{key}")
            if lock is not None:
                try:
                    await _end(self._root / f"{DRAFT}{key}")
                finally:
                    let_go(lock)

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """One at a time makes or removes a state: a worker and a person's commands are different processes."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock: IO[str] | None = None

        async def is_taken() -> bool:
            nonlocal lock
            lock = take(self._root / f"{LOCK}{key}")
            return lock is not None

        await until(is_taken, 2 * BOOT_SECONDS, f"The frozen state {key} was not free", pause=0.2)
        assert lock is not None  # it was waited for
        try:
            yield
        finally:
            let_go(lock)

    async def _make(self, shape: Shape, image: Image, key: KeyPair, folder: Path) -> None:
        started = time.monotonic()
        draft = self._root / f"{DRAFT}{shape.key}"
        host = new_key("frozen")
        log.info("action=freeze shape=%s", shape.key)
        try:
            try:
                await self._boot_and_save(shape, image, key, host, draft)
            except _GuestEnded as error:  # which is rare; an image that is broken ends each time
                log.warning("action=freeze shape=%s again: %s", shape.key, clean_line(error.seen or error.what))
                await self._boot_and_save(shape, image, key, host, draft)
            (draft / NOTE).write_text(json.dumps({"host_key": host.public}))
            for name in (host_process.NOTE, process.Machine.log_name, "console.log", "qmp"):
                (draft / name).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        except BaseException:
            await asyncio.shield(_end(draft))
            raise
        log.info("action=frozen shape=%s seconds=%.1f", shape.key, time.monotonic() - started)

    async def _boot_and_save(self, shape: Shape, image: Image, key: KeyPair, host: KeyPair, draft: Path) -> None:
        """From nothing, whatever an earlier boot has left."""
        await _end(draft)
        await asyncio.to_thread(_begin, draft, host, key)
        await new_disk(draft, image.disk)
        name = draft.name
        machine = await process.start(name, draft, arguments(shape, image, name, frozen=None, console=True))
        try:
            port = await machine.ssh_port()
            endpoint = Endpoint("127.0.0.1", port, "agent", host.public)
            sandbox = RemoteSandbox(name, Link(name, endpoint, key, machine.death), CAPABILITIES)
            try:
                await self._settle(sandbox, draft)
            finally:
                await sandbox.close()
            await _save(machine, draft / "state")
        except SandboxError as error:
            if await machine.has_ended(GONE_SECONDS) and not machine.was_killed:
                raise _GuestEnded(error.what, seen=error.seen, try_=error.try_) from error
            raise
        finally:
            await machine.kill()

    async def _settle(self, sandbox: RemoteSandbox, draft: Path) -> None:
        """Wait until the machine has booted and is quiet."""
        try:
            await sandbox.link.connect(BOOT_SECONDS)
        except SandboxError as error:
            said = ""
            with suppress(OSError):
                said = (draft / "console.log").read_text(errors="replace").strip()[-600:]
            raise SandboxError(
                "A machine of this image does not boot.",
                seen=f"{error.seen or error.what}; console: {said or 'silent'}",
            ) from error
        wait = ["sudo", "-n", "timeout", str(SETTLE_SECONDS), "systemctl", "is-system-running", "--wait"]
        await sandbox.run(wait, timeout_seconds=SETTLE_SECONDS + 30)
        await sandbox.run(["sh", "-c", f"{_WARM_UP}; sync"], timeout_seconds=SETTLE_SECONDS)

    def _evict(self, keep: Path) -> None:
        """The longest unused go, unless a machine's disk stands on them."""
        states = sorted((path for path in self._root.iterdir() if not path.name.startswith(".")), key=_used_at)
        used = {str(note.get("frozen")) for note in map(_read_note, self._sandboxes.glob(f"*/{host_process.NOTE}"))}
        for folder in states[: max(0, len(states) - KEPT)]:
            if folder != keep and folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)


def _is_whole(state: Path) -> bool:
    """Not what somebody who was killed had begun to remove: that would load for nobody, and count as used."""
    return all(path.exists() for path in (state / NOTE, state / "state", state / "seed.tar", disk_of(state)))


def take_over(source: Home, target: Home) -> None:
    """Give the whole states of one home to another whose worker's key they have; one that is there already stays."""
    root = target.machines / "frozen"
    root.mkdir(mode=0o700, exist_ok=True)
    for note in (source.machines / "frozen").glob(f"*/{NOTE}"):
        if not (root / note.parent.name).exists():
            note.parent.rename(root / note.parent.name)


async def new_disk(folder: Path, backing: Path) -> None:
    """A disk of the machine in ``folder`` that holds only what differs from ``backing``. Raises SandboxError."""
    argv = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(backing), str(disk_of(folder))]
    done = await asyncio.create_subprocess_exec(
        "qemu-img", *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=-1
    )
    _, said = await done.communicate()
    if done.returncode:
        raise SandboxError("No disk could be made for a sandbox.", seen=said.decode(errors="replace").strip()[-300:])


async def _save(machine: process.Machine, state: Path) -> None:
    async with qmp.connect(machine.name, machine.folder) as control:
        await control.ask("stop")
        await control.ask("migrate-set-parameters", {"max-bandwidth": 2**40})
        await control.ask("migrate", {"uri": f"exec:cat > {state.name}"})
        found: dict[str, Any] = {}

        async def saved() -> bool:
            nonlocal found
            found = await control.ask("query-migrate")
            return found.get("status") in ("completed", "failed", "cancelled")

        await until(saved, SAVE_SECONDS, "The state of a machine was not saved")
        if found["status"] != "completed":
            raise SandboxError("The state of a machine could not be saved.", seen=json.dumps(found)[:300])
        await control.ask("quit")
    await machine.wait_end()


def _begin(draft: Path, host: KeyPair, worker: KeyPair) -> None:
    draft.mkdir(mode=0o700, parents=True)
    write_seed(draft / "seed.tar", host, worker)


def write_seed(path: Path, host: KeyPair, worker: KeyPair) -> None:
    """The seed disk: a tar that the first boot unpacks at ``/``."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, text, mode in (
            ("etc/ssh/ssh_host_ed25519_key", host.private, 0o600),
            ("etc/tatin/authorized_keys/agent", worker.public + "\n", 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), mode
            archive.addfile(info, io.BytesIO(text.encode()))
    path.write_bytes(data.getvalue().ljust(SEED_BYTES, b"\0"))
    path.chmod(0o600)


async def _end(draft: Path) -> None:
    machine, _ = process.Machine.find(draft.name, draft)
    if machine is not None:
        await machine.kill()
    await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)


def _used_at(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _read_note(path: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    return {}


def open_state(frozen: Frozen) -> Sequence[int]:
    """A descriptor of the saved memory, for QEMU to read. Raises SandboxError."""
    try:
        return [os.open(frozen.state, os.O_RDONLY)]
    except OSError as error:
        raise SandboxError("A frozen state cannot be read.", seen=str(error)) from error
