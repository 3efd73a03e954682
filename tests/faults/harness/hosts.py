"""Hosts: homes of their own on one machine, each with a real worker process that can be killed, frozen and told to
stop. They share a Redis by its address, and the blobs by a link, as one folder on shared storage would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tatin_jobs.home import Home
from tests.support.wait import until

ROOT = Path(__file__).parents[3]
SHORT = {"TATIN_LEASE_SECONDS": "2", "TATIN_BEAT_SECONDS": "0.25", "TATIN_REAP_SECONDS": "0.25"}
"""A lease is over in two seconds."""


class Host:
    """One home, and the worker on it while there is one."""

    def __init__(
        self,
        root: Path,
        name: str,
        url: str,
        *,
        blobs: Path | None = None,
        slots: int = 2,
        cpus: int = 2,
        max_deaths: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.home = Home(root)
        self.slots, self.cpus = slots, cpus
        self._url = url
        self._environment = {**SHORT, **(environment or {})}
        root.mkdir(parents=True, exist_ok=True)
        if blobs is not None and not self.home.blobs.exists():
            self.home.blobs.symlink_to(blobs)
        self.home.prepare()
        settings = f"cpus = {cpus}\nmemory_mib = 8192\nslots = {slots}\nmax_deaths = {max_deaths}\ndisk_floor_mib = 0\n"
        self.home.settings_file.write_text(settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Of a command on this host."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TATIN_")}
        own = {"TATIN_HOME": str(self.home.root), "TATIN_REDIS_URL": self._url, "TATIN_WORKER_NAME": self.name}
        return {**kept, "PYTHONPATH": str(ROOT), **own, **self._environment}

    def start(self, *wrapper: str, module: str = "", flags: tuple[str, ...] = ()) -> None:
        """Start a worker; ``wrapper`` is a command line that becomes it, ``module`` another program than Tatin's."""
        command = [*wrapper, sys.executable, "-m", *([module] if module else ["tatin_jobs.cli", "worker", *flags])]
        with (self.home.root / "worker.out").open("ab") as out:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def runs(self) -> bool:
        """Whether its worker process is there."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def ended(self, timeout: float = 40) -> int:
        """Wait for the worker's own end; its exit status."""
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self, timeout: float = 60) -> int:
        """The polite end, hurried."""
        if not self.runs():
            return 0
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self.send(signal.SIGHUP)
        return self.ended(timeout)

    def said(self) -> str:
        """What the worker has printed so far."""
        return (self.home.root / "worker.out").read_text(errors="replace")

    def sandboxes(self) -> list[str]:
        """Names of the sandboxes that lie on this host."""
        return sorted(name for name in os.listdir(self.home.sandboxes) if name.startswith("tatin-"))

    def let_agents_end(self) -> None:
        """Open the gate of every agent that runs ``fleet.GATE`` here."""
        for name in self.sandboxes():
            with suppress(FileNotFoundError):  # being destroyed
                (self.home.sandboxes / name / "home" / "work" / "go").touch()

    def guests(self) -> list[psutil.Process]:
        """The bwrap processes of this host that live."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.name() == "bwrap" and any(str(self.home.sandboxes) in part for part in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_clean(self) -> bool:
        """Nothing of an attempt is left."""
        return not self.sandboxes() and not os.listdir(self.home.journal) and not self.guests()

    def wait_clean(self, timeout: float = 30) -> None:
        until(self.is_clean, timeout, f"a clean host '{self.name}'")
