"""``tatin`` with a stand-in for the provider of virtual machines, which prints what it is asked: one line for each.

``python -m tests.support.noted_machines attach ID``. A machine takes for ever to be made, and is stopped when there is
a file ``go`` in the home.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any, cast

from tatin_jobs.cli import main
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings
from worker import interactive
from worker.sandboxes.base import SandboxProvider
from worker.ssh import Endpoint


class Machines:
    """As a ``SandboxProvider``, where a person's commands ask one."""

    kind = "qemu"

    def __init__(self, home: Home) -> None:
        self._go = home.root / "go"

    async def list(self) -> list[str]:
        return []

    async def create(self, spec: Any) -> None:
        print("create", flush=True)
        await asyncio.Event().wait()

    async def start(self, name: str) -> Any:
        print("start", flush=True)
        link = SimpleNamespace(endpoint=Endpoint("127.0.0.1", 22, "agent", "ssh-ed25519 AAAA"))
        return SimpleNamespace(link=link, let_go=self.list)

    async def stop(self, name: str) -> None:
        print("stop", flush=True)
        while not self._go.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.02)
        print("stopped", flush=True)

    async def destroy(self, name: str) -> None:
        print("destroy", flush=True)


def of_here(settings: Settings, home: Home) -> SandboxProvider:
    return cast("SandboxProvider", Machines(home))


if __name__ == "__main__":
    interactive.provider_of_machines = of_here
    interactive._END_SECONDS = 0.5
    sys.exit(main(sys.argv[1:]))
