"""One QEMU process: started in its folder, noted there with pid and start time, found again, ended.

It is in a session of its own and outlives its worker; the next one adopts it or ends it by the note.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tatin_jobs.errors import SandboxError
from worker.sandboxes.host_process import END_SECONDS, HostProcess
from worker.sandboxes.qemu import qmp
from worker.sandboxes.qemu.waiting import until

READY_SECONDS = 60.0


class Killed(SandboxError):
    """Its QEMU was killed from outside: that says nothing of the state that it was to load."""


class Machine(HostProcess):
    """A QEMU that runs, whoever started it."""

    program = "QEMU"
    log_name = "qemu.log"

    async def ready(self) -> None:
        """Wait until it takes commands. Raises SandboxError: it ended, or does not in time."""

        async def listens() -> bool:
            if seen := self.death():
                raise (Killed if self.was_killed else SandboxError)(f"QEMU of '{self.name}' ended.", seen=seen)
            return (self.folder / "qmp").exists()

        await until(listens, READY_SECONDS, f"QEMU of '{self.name}' took no command")

    async def running(self) -> None:
        """Wait until the frozen state is loaded, and let the guest go on. Raises SandboxError."""
        async with qmp.connect(self.name, self.folder) as control:

            async def loaded() -> bool:
                return (await control.ask("query-status"))["status"] != "inmigrate"  # type: ignore[no-any-return]

            await until(loaded, READY_SECONDS, f"The frozen state of '{self.name}' was not loaded")
            await control.ask("cont")

    async def ssh_port(self) -> int:
        """The port of the host's loopback that reaches the guest's SSH. Raises SandboxError."""
        async with qmp.connect(self.name, self.folder) as control:
            said = str(await control.ask("human-monitor-command", {"command-line": "info usernet"}))
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s", said)
        if found is None:
            raise SandboxError(f"QEMU of '{self.name}' forwards no port for SSH.", seen=said[:300])
        return int(found[1])


async def start(name: str, folder: Path, argv: Sequence[str], pass_fds: Sequence[int] = ()) -> Machine:
    """Start QEMU in ``folder`` and wait until it takes commands.

    Raises:
        SandboxError: it ended at once, with its own words.
    """
    with suppress(FileNotFoundError):
        (folder / "qmp").unlink()
    env = {"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(folder)}
    machine = await Machine.spawn(name, folder, argv, env, pass_fds)
    try:
        await machine.ready()
    except BaseException:
        await machine.kill()
        raise
    return machine


def end_unnoted(name: str) -> None:
    """SIGKILL to what ``unnoted`` finds, and wait until it is gone. Raises SandboxError: it is not."""
    found = unnoted(name)
    for left in found:
        with suppress(psutil.Error):
            left.kill()
    _, alive = psutil.wait_procs(found, timeout=END_SECONDS)
    if alive:
        raise SandboxError(f"QEMU of '{name}' (process {alive[0].pid}) does not die.")


def unnoted(name: str) -> list[psutil.Process]:
    """QEMUs with this machine's name: one whose worker died before it was noted. The name has our home's id in it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line and "qemu-system" in line[0] and ["-name", name] in [line[at : at + 2] for at in range(len(line))]:
            found.append(process)
    return found
