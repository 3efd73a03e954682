"""``tart run``: the process that is a machine, from its start to its verified end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

import psutil

from tatin_jobs.errors import SandboxError
from worker.sandboxes.host_process import HostProcess, lives
from worker.sandboxes.tart.cli import STOP_SECONDS, call, find_tart, tart_environment, tart_home

RUN_FLAGS = ("--no-graphics", "--no-audio", "--no-clipboard", "--root-disk-opts", "sync=none")
"""No window, no sound, no clipboard; no ``--dir``; a disk that is thrown away need not be synced."""
TERM_SECONDS = 5.0
GONE_SECONDS = 10.0


class TartMachine(HostProcess):
    """One ``tart run``. It prints to a file: a pipe that nobody reads would stop it."""

    program = "tart run"
    log_name = "run.log"
    said = ""
    """What was seen last of a machine that is not reached yet."""

    @classmethod
    async def boot(cls, name: str, folder: Path, network: tuple[str, ...]) -> Self:
        """Start the clone of this name.

        Raises:
            SandboxError: it cannot be started, or ended at once.
        """
        return await cls.spawn(name, folder, [find_tart(), "run", name, *RUN_FLAGS, *network], tart_environment())

    async def stop(self) -> None:
        """A power cut, by ``tart stop`` and then by signals. Raises SandboxError when it does not die."""
        try:
            await call("stop", "--timeout", str(STOP_SECONDS), self.name, seconds=STOP_SECONDS + 10)
        except SandboxError:
            pass  # what follows ends it too
        if await self.has_ended(TERM_SECONDS):
            return
        self.terminate()
        if not await self.has_ended(TERM_SECONDS):
            await self.kill()


def running_of(name: str) -> list[psutil.Process]:
    """``tart run`` processes of this name: one whose worker died before it was noted. The name has our home's id."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any(line[at : at + 2] == ["run", name] for at in range(len(line))) and lives(process):
            found.append(process)
    return found


def holders(name: str) -> list[int]:
    """Processes that still have the machine's disk open: Virtualization's helper has been seen to outlive ``tart run``,
    with the machine's memory. It is not ours to kill: other programs own some."""
    disk = str(tart_home() / "vms" / name / "disk.img")
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path == disk for file in process.open_files()):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


async def wait_let_go(name: str) -> None:
    """Return when nobody holds the machine's disk.

    Raises:
        SandboxError: somebody still does; its memory is still in use.
    """
    deadline = asyncio.get_running_loop().time() + GONE_SECONDS
    while pids := await asyncio.to_thread(holders, name):
        if asyncio.get_running_loop().time() > deadline:
            held = ", ".join(map(str, pids))
            raise SandboxError(
                f"The machine of '{name}' has ended, and its disk is still held.",
                seen=f"by process {held}",
                try_=f"look at it with `ps -p {held}`; a restart of the Mac frees it for certain.",
            )
        await asyncio.sleep(0.2)
