"""Tart's command line as tests call it: the stand-in, or with ``TATIN_TEST_TART=tart`` the real one on a Mac."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.wait import until

STAND_IN = Path(__file__).parents[1] / "standins" / "tart" / "tart"
LIMIT_SECONDS = 60.0


class Tart:
    """Tart on a ``TART_HOME`` of its own, with an empty VM ``base`` in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.program = os.environ.get("TATIN_TEST_TART") or str(STAND_IN)
        self.is_stand_in = self.program == str(STAND_IN)
        self._runs: list[subprocess.Popen[str]] = []

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "TART_HOME": str(self.home), "TART_NO_AUTO_PRUNE": "1"}

    @property
    def for_a_worker(self) -> dict[str, str]:
        """The variables by which a worker finds this Tart."""
        folder = os.path.dirname(shutil.which(self.program) or self.program)
        return {"TART_HOME": str(self.home), "PATH": os.pathsep.join([folder, os.environ["PATH"]])}

    def __call__(
        self, *arguments: str, stdin: str | None = None, cwd: Path | None = None, prune: bool = False
    ) -> subprocess.CompletedProcess[str]:
        environ = self.environ
        if prune:
            del environ["TART_NO_AUTO_PRUNE"]
        return subprocess.run(
            [self.program, *arguments],
            env=environ,
            cwd=cwd,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    def good(self, *arguments: str, **options: Any) -> str:
        """Its stdout, when it ended with 0."""
        done = self(*arguments, **options)
        assert done.returncode == 0, done
        return done.stdout

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it and go on; it is killed at the end of the test."""
        process = subprocess.Popen(
            [self.program, *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._runs.append(process)
        return process

    def run(self, name: str, *flags: str) -> subprocess.Popen[str]:
        """``run`` it headless; returns when it is running."""
        process = self.begin("run", name, "--no-graphics", *flags)
        until(lambda: self.state(name) == "running" or process.poll() is not None)
        return process

    def rows(self, *flags: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.good("list", "--format", "json", *flags))
        return found

    def state(self, name: str) -> str | None:
        return next((row["State"] for row in self.rows() if row["Name"] == name), None)

    def config(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "vms" / name / "config.json").read_text())
        return found

    def dial(self, **dials: Any) -> None:
        """Turn these; all others are as they were (the stand-in's ``dials.py`` has the list)."""
        path = self.home / "standin.json"
        turned = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(turned | dials))

    def close(self) -> None:
        for process in self._runs:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self._runs.clear()
        helpers = self.home / "standin-helpers"
        for pid in helpers.read_text().split() if helpers.exists() else ():
            os.kill(int(pid), signal.SIGKILL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of what ``begin`` started, once it has ended."""
    stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, stdout, stderr


def host_agent(folder: str = "{folder}") -> Sequence[str]:
    """A guest agent that runs a command on the host, in the VM's folder: for tests that need no guest."""
    return ["sh", "-c", f"cd {folder} && exec {{command}}"]
