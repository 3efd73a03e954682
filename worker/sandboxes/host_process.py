"""A process of the host that is a sandbox's machine: started in the sandbox's folder, noted there with pid and start
time, found again by the next worker, ended.

It is in a session of its own and outlives its worker. A pid is worth something only together with its start time.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from tatin_jobs.errors import SandboxError

NOTE = "machine.json"
POLL_SECONDS = 0.5
END_SECONDS = 20.0
SAME_START_SECONDS = 0.05
LOG_BYTES = 2**20
"""What is kept of what a machine's process prints: a guest may be able to make it print without end."""
LOG_SECONDS = 5.0
SAID_BYTES = 300


class HostProcess:
    """One that runs, whoever started it. ``program`` is what people are told; what it prints is kept in ``log_name``
    in its folder."""

    program: ClassVar[str]
    log_name: ClassVar[str]

    def __init__(
        self, name: str, folder: Path, process: psutil.Process, child: asyncio.subprocess.Process | None
    ) -> None:
        self.name = name
        self.folder = folder
        self._process = process
        self._child = child

    @classmethod
    async def spawn(
        cls, name: str, folder: Path, argv: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> Self:
        """Start it in ``folder``, without a terminal, and note it.

        Raises:
            SandboxError: it cannot be started, or ended at once; with its own words.
        """
        try:
            with (folder / cls.log_name).open("ab") as log:
                child = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env=dict(env),
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
        except OSError as error:
            raise SandboxError(f"{cls.program} of '{name}' cannot be started.", seen=str(error)) from error
        try:
            machine = cls(name, folder, psutil.Process(child.pid), child)
            machine.note()
        except psutil.Error as error:
            await child.wait()
            raise SandboxError(f"{cls.program} of '{name}' ended at once.", seen=cls._said(folder)) from error
        return machine

    @classmethod
    def find(cls, name: str, folder: Path) -> tuple[Self | None, dict[str, Any]]:
        """The living process that the folder's note names, and the note; (None, {}) where none can be read."""
        try:
            note: dict[str, Any] = json.loads((folder / NOTE).read_text())
            pid, started = int(note["pid"]), float(note["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, {}
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < SAME_START_SECONDS and lives(process):
                return cls(name, folder, process, None), note
        return None, note

    def note(self, **more: Any) -> None:
        """Write the note, whole or not at all: which process it is and what the next worker must know of it. What was
        noted before stays."""
        _, known = self.find(self.name, self.folder)
        body = {**known, "pid": self._process.pid, "started": self._process.create_time(), **more}
        draft = self.folder / f".{NOTE}"
        draft.write_text(json.dumps(body))
        draft.chmod(0o600)
        draft.replace(self.folder / NOTE)

    def death(self) -> str | None:
        """What was seen when it is gone; None while it lives."""
        if self._child is not None and self._child.returncode is not None:
            return self._words(self._child.returncode)
        return None if lives(self._process) else self._words(None)

    @property
    def was_killed(self) -> bool:
        """Whether it is known to have ended by SIGKILL; of a process of an earlier worker nobody knows."""
        return self._child is not None and self._child.returncode == -signal.SIGKILL

    async def wait_end(self) -> str:
        """Return when it has ended, with what was seen."""
        if self._child is not None:
            return self._words(await self._child.wait())
        while lives(self._process):  # noqa: ASYNC110 - an adopted process tells nobody of its end
            await asyncio.sleep(POLL_SECONDS)
        return self._words(None)

    async def has_ended(self, seconds: float) -> bool:
        """Whether it is gone within this time."""
        try:
            async with asyncio.timeout(seconds):
                await self.wait_end()
        except TimeoutError:
            return False
        return True

    async def hold_log(self) -> None:
        """Cut the log back to its first ``LOG_BYTES`` whenever it is longer; never returns.

        While no worker lives it may grow: what limits it then is a pipe to another process beside each machine, and the
        last words of a machine that has just ended would still be on their way when they are read.
        """
        while True:
            with suppress(OSError):
                if (self.folder / self.log_name).stat().st_size > LOG_BYTES:
                    os.truncate(self.folder / self.log_name, LOG_BYTES)  # what is printed next is appended
            await asyncio.sleep(LOG_SECONDS)

    def terminate(self) -> None:
        """SIGTERM."""
        with suppress(psutil.Error):
            self._process.terminate()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Raises SandboxError when it is not."""
        with suppress(psutil.Error):
            self._process.kill()
        if not await self.has_ended(END_SECONDS):
            raise SandboxError(f"{self.program} of '{self.name}' (process {self._process.pid}) does not die.")

    def cpu_seconds(self) -> float | None:
        """What it has used."""
        with suppress(psutil.Error):
            times = self._process.cpu_times()
            return round(times.user + times.system, 1)
        return None

    def _words(self, status: int | None) -> str:
        said = self._said(self.folder)
        how = f"{self.program} ended" if status is None else f"{self.program} ended with status {status}"
        return f"{how}: {said}" if said else how

    @classmethod
    def _said(cls, folder: Path) -> str:
        with suppress(OSError), (folder / cls.log_name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - SAID_BYTES))
            return log.read(SAID_BYTES).decode(errors="replace").strip()
        return ""


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
