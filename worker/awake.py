"""Keeps the host from sleeping while attempts run: ``caffeinate`` on a Mac, ``systemd-inhibit`` on Linux.

The child ends with the pipe that the worker holds, so none outlives a worker that was killed. Where neither program
works the host may sleep, which is survived (F06); ``doctor`` says so beforehand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence

_UNTIL_CLOSED = ("sh", "-c", "read -r _")
PROGRAMS = {
    "darwin": ("caffeinate", "-i", *_UNTIL_CLOSED),
    "linux": (
        "systemd-inhibit",
        "--what=sleep:idle",
        "--who=tatin",
        "--why=coding jobs are running",
        "--mode=block",
        *_UNTIL_CLOSED,
    ),
}
TRY_SECONDS = 10


class Awake:
    """One assertion, held or not. ``argv`` is for tests; None: what this host has."""

    def __init__(self, argv: Sequence[str] | None = None) -> None:
        self._argv = tuple(argv) if argv is not None else command()
        self._child: subprocess.Popen[bytes] | None = None

    def hold(self, wanted: bool) -> None:
        """Hold it or let go of it; safe to call again and again, and never raises."""
        if not wanted:
            self.close()
        elif self._argv and (self._child is None or self._child.poll() is not None):
            self.close()
            try:
                self._child = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                self._argv = ()

    @property
    def is_held(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def close(self) -> None:
        """Let go of it."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None  # it was opened as a pipe
            child.stdin.close()
            try:
                child.wait(TRY_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def command() -> tuple[str, ...]:
    """What keeps this host awake; empty where it has no such program."""
    argv = PROGRAMS.get(sys.platform, ())
    return argv if argv and shutil.which(argv[0]) else ()


def works(argv: Sequence[str]) -> str | None:
    """None when ``argv`` holds for a moment, else what was seen."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip()
    # `read` finds its input closed at once and answers 1; anything else is the other program's failure.
    return None if done.returncode in (0, 1) and not said else said[-200:] or f"exit {done.returncode}"
