"""The guests of these tests: on their own image, and a few that all tests share, since a boot takes a minute."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tests.contract.conftest import HOME_ID, spec_of
from tests.support.parts import CI_IMAGE
from worker.sandboxes.base import SandboxProvider, SandboxSpec
from worker.sandboxes.qemu.provider import QemuProvider
from worker.sandboxes.qemu.sandbox import QemuSandbox
from worker.sandboxes.remote import RemoteSandbox

SHARED = 90
_CLEAN = """
export PATH=/usr/bin:/bin
cd /home/agent; sudo -n chmod -R u+rwx .; find . -mindepth 1 -delete; mkdir -p work .local/bin
sudo -n find /run/tatin -mindepth 1 -delete
sudo -n find /tmp -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' -exec rm -rf {} +
sudo -n rm -f /etc/apt/apt.conf.d/90tatin /etc/sudoers.d/90-tatin-network
sudo -n date --set "@$0"
"""


class CiProvider(QemuProvider):
    """On the tests' image, whatever the spec names."""

    async def create(self, spec: SandboxSpec) -> QemuSandbox:
        return await super().create(replace(spec, image=CI_IMAGE))


_WORKER = """
import asyncio, importlib, os, signal, sys
from dataclasses import replace
from pathlib import Path
from tatin_jobs.home import Home
from tests.contract.conftest import spec_of

async def main():
    root, name, module, kind = sys.argv[1:]
    provider = getattr(importlib.import_module(module), kind)(Home(Path(root)), name.split("-")[1])
    await provider.create(replace(spec_of(1), name=name))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def make_and_die(home: Home, name: str, provider: type[SandboxProvider] = CiProvider) -> None:
    """A machine whose worker was killed as soon as it was there: no child of this process, which has a loop a test."""
    argv = [sys.executable, "-c", _WORKER, str(home.root), name, provider.__module__, provider.__name__]
    worker = await asyncio.create_subprocess_exec(*argv, cwd=Path(__file__).parents[2])
    assert await worker.wait() == -signal.SIGKILL, "it could not be made"


async def tidy(shared: RemoteSandbox) -> bool:
    """What a test left in the shared guest goes, and the connection to it. False: it is of no more use; the test, which
    may have destroyed it, is the one to say why."""
    try:
        await shared.kill_all()
        cleaned = await shared.run(["/bin/sh", "-c", _CLEAN, f"{time.time():.3f}"], cwd="/")
    except SandboxError:
        return False
    finally:
        await shared.close()
    return cleaned.exit_status == 0


class SharedGuests(CiProvider):
    """Gives out guests that live as long as the tests run: each is adopted, as the next worker would, and when it is
    destroyed what was done in it is killed and removed, and the connection closed."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, HOME_ID)
        self._given: dict[str, QemuSandbox] = {}

    async def create(self, spec: SandboxSpec) -> QemuSandbox:
        number = next(number for number in range(SHARED, SHARED + 4) if spec_of(number).name not in self._taken())
        self._given[spec.name] = made = await self._guest(spec_of(number).name)
        return made

    async def destroy(self, name: str) -> None:
        given = next((key for key, made in self._given.items() if name in (key, made.name)), None)
        if given is None:
            return
        made = self._given.pop(given)
        if not await tidy(made):
            await super().destroy(made.name)

    async def list(self) -> Sequence[str]:
        return sorted(self._given)

    def _taken(self) -> set[str]:
        return {made.name for made in self._given.values()}

    async def _guest(self, name: str) -> QemuSandbox:
        with suppress(SandboxError):
            return await self.adopt(name)
        await super().destroy(name)
        await make_and_die(self._home, name)
        return await self.adopt(name)
