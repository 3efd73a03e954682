"""One Tart guest: what is said over SSH is the base's; this watches ``tart run``."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from worker.sandboxes.base import Capabilities, SandboxUsage
from worker.sandboxes.remote import RemoteSandbox
from worker.sandboxes.tart.cli import tart_home
from worker.sandboxes.tart.machine import TartMachine
from worker.ssh import Link


class TartSandbox(RemoteSandbox):
    """Made by the provider, with the guest handed over."""

    def __init__(self, machine: TartMachine, link: Link, capabilities: Capabilities) -> None:
        super().__init__(machine.name, link, capabilities)
        self.machine = machine
        self._watch = asyncio.create_task(self._watch_end())

    async def usage(self) -> SandboxUsage:
        return replace(await super().usage(), disk_mib=await asyncio.to_thread(self._disk_mib))

    def _disk_mib(self) -> int | None:
        try:
            return (tart_home() / "vms" / self.name / "disk.img").stat().st_blocks // 2048
        except OSError:
            return None

    async def close(self) -> None:
        self._watch.cancel()
        await super().close()

    async def _watch_end(self) -> None:
        """A guest that powers off ends ``tart run``; one that crashes too, with exit 0 (F53)."""
        self.say_dead(await self.machine.wait_end())
