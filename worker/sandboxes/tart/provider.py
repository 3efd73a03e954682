"""The Tart provider: a virtual machine on a Mac for each sandbox, cloned from an image and thrown away."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, TypeVar

import psutil

from tatin_jobs.errors import DiskFull, PartMissing, SandboxError
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings
from worker.sandboxes.base import Finding, SandboxProvider, SandboxSpec
from worker.sandboxes.names import is_ours, parse_sandbox_name
from worker.sandboxes.remote import RENEW, renewal
from worker.sandboxes.removal import remove_tree
from worker.sandboxes.tart import network
from worker.sandboxes.tart.cli import (
    CLONE_SECONDS,
    DELETE_SECONDS,
    EXEC_SECONDS,
    IP_SECONDS,
    SET_SECONDS,
    call,
    exec_proxy,
    list_machines,
    must,
    tart_home,
)
from worker.sandboxes.tart.local_network import Denial
from worker.sandboxes.tart.machine import TartMachine, running_of, wait_let_go
from worker.sandboxes.tart.macos_guests import REFUSED, busy, check_room, is_macos
from worker.sandboxes.tart.prereqs import check
from worker.sandboxes.tart.sandbox import TartSandbox
from worker.ssh import Endpoint, KeyPair, Link, new_key, worker_key

BOOT_SECONDS = 180.0
"""From ``tart run`` to the first command over SSH."""
BOOT_TRIES = 2
SSH_TRY_SECONDS = 15.0
RETRY_SECONDS = 0.5
ADOPT_SECONDS = 30.0
SPARE_BYTES = 4 * 10**9
"""A clone takes no room at first, and a full disk stops every machine of the host: none is begun below this."""
DISK_UNIT = 10**9
MANIFEST = "/opt/tatin/image.json"
NOT_YET = ("control socket", "is not running", "Transport became inactive")
"""What ``tart exec`` says of a machine that has not taken its lock yet, or whose guest agent is not up."""

T = TypeVar("T")


class TartProvider(SandboxProvider):
    """Machines in Tart's own home; what we know of each is in a folder under ``<home>/sandboxes``."""

    kind = "tart"
    own_image: ClassVar[bool] = True

    def __init__(self, home: Home, home_id: str) -> None:
        self._home = home
        self._home_id = home_id
        self._softnet = network.has_softnet()
        self.capabilities = network.capabilities(softnet=self._softnet, pf=self._softnet and network.has_pf_anchor())
        self._live: dict[str, TartSandbox] = {}
        self._macs: set[str] = set()
        """Names of macOS guests from before their start until they are gone."""
        self._mac_lock = asyncio.Lock()
        self.over_network = True

    def configure(self, settings: Settings) -> None:
        self.over_network = settings.tart_ssh == "network"

    async def create(self, spec: SandboxSpec) -> TartSandbox:
        self._check_name(spec.name)
        image_gb = await self._look_before(spec)
        for tries_left in reversed(range(BOOT_TRIES)):
            try:
                return await self._make(spec, image_gb)
            except _NotBooted:
                await asyncio.shield(self._clear(spec.name))
                if not tries_left:
                    raise
            except BaseException:
                await asyncio.shield(self._clear(spec.name))
                raise
        raise AssertionError  # the loop returns or raises

    async def adopt(self, name: str) -> TartSandbox:
        self._check_name(name)
        machine, note = TartMachine.find(name, self._home.sandboxes / name)
        if machine is None or "host_key" not in note:
            raise SandboxError(f"Sandbox '{name}' is not alive, or was never finished.")
        sandbox = self._sandbox(machine, str(note["address"]), str(note["host_key"]))
        sandbox.handed_over = int(note["handed_over"])
        sandbox.image, sandbox.parts = str(note["image"]), note["parts"]
        await sandbox.reach(ADOPT_SECONDS)
        self._live[name] = sandbox
        return sandbox

    async def stop(self, name: str) -> None:
        sandbox = self._live.pop(name, None) or await self.adopt(name)
        self._live.pop(name, None)
        await sandbox.write_out()
        await sandbox.close()
        await sandbox.machine.stop()
        await wait_let_go(name)
        self._macs.discard(name)

    async def start(self, name: str) -> TartSandbox:
        """As after a clone: the guest gets a new host key by first contact, and is reached by it."""
        self._check_name(name)
        machine, note = TartMachine.find(name, self._home.sandboxes / name)
        if machine is not None:
            return await self.adopt(name)
        if "image" not in note or name not in {row.name for row in await list_machines() if row.is_local}:
            raise SandboxError(f"Sandbox '{name}' is not there to be started.")
        if await is_macos(name):
            await self._take_mac(name)
        try:
            return await self._boot(name, str(note["image"]))
        except BaseException:
            await asyncio.shield(self._end(name))
            raise

    async def list(self) -> Sequence[str]:
        names = {row.name for row in await list_machines() if row.is_local}
        try:
            names |= {path.name for path in self._home.sandboxes.iterdir()}
            names |= {path.name for path in (tart_home() / "vms").iterdir()}  # half a clone is not listed
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SandboxError("The folders of Tart's machines cannot be read.", seen=str(error)) from error
        return sorted(name for name in names if is_ours(name, self._home_id))

    async def destroy(self, name: str) -> None:
        self._check_name(name)
        sandbox = self._live.pop(name, None)
        if sandbox is not None:
            await sandbox.close()
        await self._clear(name)

    def check(self) -> Sequence[Finding]:
        return check(self.capabilities)

    # Making one

    async def _look_before(self, spec: SandboxSpec) -> int:
        """The image's disk in GB; nothing has been made yet."""
        try:
            rows = {row.name: row for row in await list_machines()}
        except PartMissing as error:
            raise SandboxError(error.what, seen=error.seen, try_=error.try_) from error
        # A sandbox is no image, though its name could be one's: what another job or a person has in it is not for this.
        if spec.image not in rows or parse_sandbox_name(spec.image):
            raise SandboxError(
                f"Image '{spec.image}' is not on this host.",
                seen="`tart list` does not show it, or it is a machine of Tatin's",
                try_="tatin image build --sandbox tart",
            )
        if spec.name in rows:  # `tart clone` would replace it without a word, even while it runs
            raise SandboxError(f"A machine '{spec.name}' is there already; it is left alone.")
        free = shutil.disk_usage(tart_home()).free
        if free < SPARE_BYTES:
            raise DiskFull(f"The host has no room for sandbox '{spec.name}'.", seen=f"{free // 2**20} MiB are free")
        if await is_macos(spec.image):
            await self._take_mac(spec.name)
        return rows[spec.image].disk_gb

    async def _take_mac(self, name: str) -> None:
        """One at a time, or two would see the same room."""
        async with self._mac_lock:
            await check_room(name, await list_machines(), self._macs)
            self._macs.add(name)

    async def _make(self, spec: SandboxSpec, image_gb: int) -> TartSandbox:
        folder = self._home.sandboxes / spec.name
        folder.mkdir(mode=0o700)
        what = f"Sandbox '{spec.name}' could not be made."
        await self._clone(spec, what)
        disk_gb = -(-spec.disk_mib * 2**20 // DISK_UNIT)
        size = ("--disk-size", str(disk_gb)) if disk_gb > image_gb else ()
        form = ("--cpu", str(spec.cpus), "--memory", str(spec.memory_mib), "--random-mac", *size)
        await must("set", spec.name, *form, seconds=SET_SECONDS, what=what)
        return await self._boot(spec.name, spec.image)

    async def _boot(self, name: str, image: str) -> TartSandbox:
        """The machine of this name started, and reached."""
        machine = await TartMachine.boot(name, self._home.sandboxes / name, network.run_flags(self._softnet))
        try:
            async with asyncio.timeout(BOOT_SECONDS):
                sandbox = await _while_it_runs(machine, self._reach(machine, image))
        except TimeoutError as error:
            said = machine.said or "it printed nothing"
            raise _NotBooted(
                f"Sandbox '{name}' could not be reached within {BOOT_SECONDS:g} s of its start.", seen=said
            ) from error
        self._live[name] = sandbox
        return sandbox

    async def _clone(self, spec: SandboxSpec, what: str) -> None:
        done = await call("clone", spec.image, spec.name, seconds=CLONE_SECONDS)
        if done.status and "No space left" in done.stderr:
            raise DiskFull(f"The host has no room for sandbox '{spec.name}'.", seen=done.words)
        if done.status:
            raise SandboxError(what, seen=f"`tart clone`: {done.words}")

    async def _reach(self, machine: TartMachine, image: str) -> TartSandbox:
        """The guest handed over to us. First contact is by vsock, which cannot reach another machine; the host key that
        is put there is then the one that SSH must show."""
        worker = await asyncio.to_thread(worker_key, self._home.machines / "ssh_key")
        host = new_key("guest")
        handed_over = await self._first_contact(machine.name, host, worker)
        denied = Denial(machine.name)
        while True:
            address = await self._address(machine.name)
            sandbox = self._sandbox(machine, address, host.public)
            try:
                await sandbox.link.connect(SSH_TRY_SECONDS)
            except SandboxError as error:  # a lease may be stale and lead to another machine: its key tells
                machine.said = f"{error.what} {error.seen or ''}"
                await sandbox.close()
                denied.check(machine.said)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            sandbox.handed_over = handed_over
            await sandbox.set_clock()
            sandbox.image, sandbox.parts = image, await _parts(sandbox)
            machine.note(
                address=address,
                host_key=host.public,
                handed_over=handed_over,
                image=image,
                parts=dict(sandbox.parts),
            )
            return sandbox

    async def _first_contact(self, name: str, host: KeyPair, worker: KeyPair) -> int:
        """Keys, clock, machine id and randomness of its own (F60); when that was, in the guest's clock ticks."""
        root = ("sudo", "-n", "/usr/bin/python3", "-I", "-S", "-B", "-c", RENEW)
        while True:  # until the guest agent is up; the caller's limit of time ends it
            told = renewal(host, authorized_key=worker.public)
            done = await call("exec", "-i", name, *root, seconds=EXEC_SECONDS, stdin=told)
            said = done.stdout.strip()
            if done.status == 0 and said.isdigit() and len(said) < 16:
                return int(said)
            if done.status == 0 or not any(words in done.stderr for words in NOT_YET):
                raise SandboxError(f"Sandbox '{name}' was not handed over.", seen=f"`tart exec`: {done.words}")
            await asyncio.sleep(RETRY_SECONDS)

    async def _address(self, name: str) -> str:
        """Empty: it is reached through ``tart exec``."""
        while self.over_network:
            done = await call("ip", name, "--wait", "1", seconds=IP_SECONDS)
            if done.status == 0:
                return done.stdout.strip()
            await asyncio.sleep(RETRY_SECONDS)
        return ""

    def _sandbox(self, machine: TartMachine, address: str, host_key: str) -> TartSandbox:
        key = worker_key(self._home.machines / "ssh_key")
        proxy = () if address else exec_proxy(machine.name)
        endpoint = Endpoint(address or machine.name, 22, "agent", host_key, proxy)
        link = Link(machine.name, endpoint, key, machine.death)
        return TartSandbox(machine, link, self.capabilities)

    # Ending one

    async def _clear(self, name: str) -> None:
        """End it and remove all of it, verified; fine on half a machine and on none."""
        folder = self._home.sandboxes / name
        await self._end(name)
        rows = {row.name for row in await list_machines()}
        if name in rows:
            await wait_let_go(name)
            await self._delete(name)
        try:
            await asyncio.to_thread(remove_tree, tart_home() / "vms" / name)  # half a clone, which Tart does not delete
            await asyncio.to_thread(remove_tree, folder)
        except OSError as error:
            raise SandboxError(f"Sandbox '{name}' cannot be removed.", seen=str(error)) from error
        if name in {row.name for row in await list_machines()}:
            raise SandboxError(f"Sandbox '{name}' is still there.")
        self._macs.discard(name)

    async def _end(self, name: str) -> None:
        """Nothing of it runs then."""
        machine, _ = TartMachine.find(name, self._home.sandboxes / name)
        if machine is not None:
            await machine.stop()
        for left in await asyncio.to_thread(running_of, name):
            with suppress(psutil.Error):
                left.kill()

    async def _delete(self, name: str) -> None:
        """Tart says for a moment after a kill that it still runs."""
        deadline = time.monotonic() + DELETE_SECONDS
        while True:
            done = await call("delete", name, seconds=DELETE_SECONDS)
            if done.status == 0 or "does not exist" in done.stderr:
                return
            if "is running" not in done.stderr or time.monotonic() > deadline:
                raise SandboxError(f"Sandbox '{name}' cannot be deleted.", seen=f"`tart delete`: {done.words}")
            await asyncio.sleep(RETRY_SECONDS)

    def _check_name(self, name: str) -> None:
        if not is_ours(name, self._home_id):
            raise SandboxError(f"'{name}' is no sandbox of this home; it is left alone.")


async def _parts(sandbox: TartSandbox) -> Mapping[str, str | None]:
    """The manifest that the image was built with. Raises SandboxError: it is not one of ours."""
    said = await sandbox.run(["cat", MANIFEST])
    try:
        parts = json.loads(said.stdout)["parts"]
        return {str(part): None if version is None else str(version)[:200] for part, version in parts.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SandboxError(
            f"The image of sandbox '{sandbox.name}' was not built by `tatin image build`.",
            seen=f"its '{MANIFEST}' cannot be read",
        ) from error


class _NotBooted(SandboxError):
    """The machine did not come up; another clone may."""


async def _while_it_runs(machine: TartMachine, work: Awaitable[T]) -> T:
    """``work``, given up at once when ``tart run`` ends. Raises _NotBooted then."""
    working, ended = asyncio.ensure_future(work), asyncio.ensure_future(machine.wait_end())
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        seen = ended.result()
        if REFUSED in seen:
            raise busy(machine.name, seen)
        raise _NotBooted(f"The machine of sandbox '{machine.name}' ended while it booted.", seen=seen)
    finally:
        for task in (working, ended):
            task.cancel()
        await asyncio.gather(working, ended, return_exceptions=True)
