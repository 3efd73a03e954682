"""One QEMU guest: what is said over SSH is the base's; this watches its process."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from worker.sandboxes.base import SandboxUsage
from worker.sandboxes.qemu.frozen import CAPABILITIES
from worker.sandboxes.qemu.machine import disk_of
from worker.sandboxes.qemu.process import Machine
from worker.sandboxes.remote import RemoteSandbox
from worker.ssh import Link


class QemuSandbox(RemoteSandbox):
    """Made by the provider, with the guest handed over."""

    def __init__(self, machine: Machine, link: Link) -> None:
        super().__init__(machine.name, link, CAPABILITIES)
        self.machine = machine
        self._watch = asyncio.create_task(self._watch_end())
        self._log = asyncio.create_task(machine.hold_log())

    async def usage(self) -> SandboxUsage:
        found = await super().usage()
        disk = await asyncio.to_thread(lambda: disk_of(self.machine.folder).stat().st_blocks // 2048)
        return replace(found, cpu_seconds=self.machine.cpu_seconds(), disk_mib=disk)

    async def close(self) -> None:
        self._watch.cancel()
        self._log.cancel()
        await super().close()

    async def _watch_end(self) -> None:
        """A guest that switches itself off or reboots ends its QEMU too (F53)."""
        self.say_dead(await self.machine.wait_end())
