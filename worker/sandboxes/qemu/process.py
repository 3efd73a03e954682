"""One QEMU process: started in its folder, noted there with pid and start time, found again, ended.

It is in a session of its own and outlives its worker; the next one adopts it or ends it by the note.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tatin_jobs.errors import SandboxError
from worker.sandboxes.qemu import qmp
from worker.sandboxes.qemu.waiting import until

NOTE = "machine.json"
ERRORS = "qemu.log"
READY_SECONDS = 60.0
POLL_SECONDS = 0.5
END_SECONDS = 20.0


class Machine:
    """A QEMU that runs, whoever started it."""

    def __init__(
        self, name: str, folder: Path, process: psutil.Process, child: asyncio.subprocess.Process | None
    ) -> None:
        self.name = name
        self.folder = folder
        self._process = process
        self._child = child

    def death(self) -> str | None:
        """What was seen when it is gone; None while it lives."""
        if self._child is not None and self._child.returncode is not None:
            return self._words(self._child.returncode)
        return None if _lives(self._process) else self._words(None)

    async def wait_end(self) -> str:
        """Return when it has ended, with what was seen."""
        if self._child is not None:
            return self._words(await self._child.wait())
        while _lives(self._process):  # noqa: ASYNC110 - an adopted process tells nobody of its end
            await asyncio.sleep(POLL_SECONDS)
        return self._words(None)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Raises SandboxError when it is not."""
        with suppress(psutil.NoSuchProcess):
            self._process.kill()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.wait_end()
        except TimeoutError as error:
            raise SandboxError(f"QEMU of '{self.name}' (process {self._process.pid}) does not die.") from error

    async def ready(self) -> None:
        """Wait until it takes commands. Raises SandboxError: it ended, or does not in time."""

        async def listens() -> bool:
            if seen := self.death():
                raise SandboxError(f"QEMU of '{self.name}' ended.", seen=seen)
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

    def note(self, **more: Any) -> None:
        """Write the note, whole or not at all: which process it is and what the next worker must know of it."""
        body = {"pid": self._process.pid, "started": self._process.create_time(), **more}
        draft = self.folder / f".{NOTE}"
        draft.write_text(json.dumps(body))
        draft.chmod(0o600)
        draft.replace(self.folder / NOTE)

    def cpu_seconds(self) -> float | None:
        """What it has used."""
        with suppress(psutil.Error):
            times = self._process.cpu_times()
            return round(times.user + times.system, 1)
        return None

    def _words(self, status: int | None) -> str:
        said = ""
        with suppress(OSError):
            said = (self.folder / ERRORS).read_text(errors="replace").strip()[-300:]
        how = "QEMU ended" if status is None else f"QEMU ended with status {status}"
        return f"{how}: {said}" if said else how


async def start(name: str, folder: Path, argv: Sequence[str], pass_fds: Sequence[int] = ()) -> Machine:
    """Start QEMU in ``folder`` and wait until it takes commands.

    Raises:
        SandboxError: it ended at once, with its own words.
    """
    with suppress(FileNotFoundError):
        (folder / "qmp").unlink()
    try:
        with (folder / ERRORS).open("wb") as errors:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(folder)},
                pass_fds=pass_fds,
                start_new_session=True,
            )
    except OSError as error:
        raise SandboxError(f"QEMU of '{name}' cannot be started.", seen=str(error)) from error
    try:
        machine = Machine(name, folder, psutil.Process(child.pid), child)
        machine.note()
    except psutil.Error as error:
        await child.wait()
        seen = (folder / ERRORS).read_text(errors="replace").strip()[-300:]
        raise SandboxError(f"QEMU of '{name}' ended at once.", seen=seen) from error
    try:
        await machine.ready()
    except BaseException:
        await machine.kill()
        raise
    return machine


def find(name: str, folder: Path) -> tuple[Machine | None, dict[str, Any]]:
    """The living QEMU that the folder's note names, and the note; (None, {}) where there is none to be read."""
    try:
        note = json.loads((folder / NOTE).read_text())
        process = psutil.Process(int(note["pid"]))
        same = abs(process.create_time() - float(note["started"])) < 0.05 and _lives(process)
    except psutil.Error:
        return None, note
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}
    return (Machine(name, folder, process, None) if same else None), note


def unnoted(name: str) -> list[psutil.Process]:
    """QEMUs with this machine's name: one whose worker died before it was noted. The name has our home's id in it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line and "qemu-system" in line[0] and ["-name", name] in [line[at : at + 2] for at in range(len(line))]:
            found.append(process)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
