"""Where a secret of this host comes from: a variable, a private file, the macOS Keychain, or any command.

It is read when it is needed and is kept in memory only. What a worker takes out of its environment at its start
(``take_from_environment``) is not in that of the programs that it starts later (A72).
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import BadInput
from tatin_jobs.terminal import clean_line

COMMAND_SECONDS = 60
"""A password manager may ask its user to unlock it."""
MAX_BYTES = 64 * 2**10
KEYCHAIN_PROGRAM = "/usr/bin/security"

_taken: dict[str, str] = {}


def take_from_environment(names: Iterable[str]) -> None:
    """Move these variables out of this process's environment; ``SecretSource`` finds them all the same."""
    for name in names:
        if (value := os.environ.pop(name, None)) is not None:
            _taken[name] = value


@dataclass(frozen=True)
class SecretSource:
    """Exactly one of its fields is set. ``keychain`` is the name of a service's password in the user's Keychain."""

    env: str | None = None
    file: Path | None = None
    command: Sequence[str] | None = None
    keychain: str | None = None

    def __str__(self) -> str:
        """For people: never the secret."""
        if self.env:
            return f"variable {self.env}"
        if self.file:
            return str(self.file)
        return f"Keychain '{self.keychain}'" if self.keychain else f"command {(self.command or ['?'])[0]}"

    def read(self, what: str) -> str:
        """The secret, without the white space around it. ``what`` begins the error: ``The key of ...``.

        May take as long as ``COMMAND_SECONDS``.

        Raises:
            BadInput: it is not there, empty, too large, readable by others, or its command failed or took too long.
        """
        if self.env:
            value = self._from_environment(what, self.env)
        elif self.file:
            value = _from_file(what, self.file.expanduser())
        elif self.keychain:
            value = _from_keychain(what, self.keychain)
        else:
            value = _from_command(what, list(self.command or ()))
        if not value.strip():
            raise BadInput(f"{what} is empty.", seen=f"from {self}")
        return value.strip()

    def _from_environment(self, what: str, name: str) -> str:
        value = os.environ.get(name, _taken.get(name))
        if value is None:
            raise BadInput(
                f"{what} is not set.",
                seen=f"no variable {name} in the worker's environment",
                try_=f"start the worker with {name} set.",
            )
        return value


def _from_file(what: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise BadInput(f"{what} cannot be read: '{path}' is no file.")
            if mode & 0o077:
                raise BadInput(f"{what} is in '{path}', which can be read by others.", try_=f"chmod 600 {path}")
            return _text(what, file.read(MAX_BYTES + 1))
    except OSError as error:
        raise BadInput(f"{what} cannot be read.", seen=str(error)) from error


def _from_keychain(what: str, service: str) -> str:
    if sys.platform != "darwin":
        raise BadInput(
            f"{what} cannot be read: the Keychain is part of macOS.",
            try_="take it from a variable, a file or a command on this host.",
        )
    return _from_command(what, [KEYCHAIN_PROGRAM, "find-generic-password", "-s", service, "-w"])


def _from_command(what: str, argv: list[str]) -> str:
    """What the command prints. Its stderr is not shown whole, for it is nobody's business but its own."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        # Not chained: the exception holds what was printed so far.
        raise BadInput(f"{what} cannot be read: '{argv[0]}' took longer than {COMMAND_SECONDS} s.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{what} cannot be read: '{argv[0]}' cannot be started.", seen=str(error)) from error
    if done.returncode:
        raise BadInput(
            f"{what} cannot be read: '{argv[0]}' exited with {done.returncode}.",
            seen=clean_line(done.stderr.decode(errors="replace")) or None,
            try_="run that command by hand as the worker's user.",
        )
    return _text(what, done.stdout)


def _text(what: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise BadInput(f"{what} has more than {MAX_BYTES} bytes.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{what} is not UTF-8.") from None  # the exception holds the bytes
    if "\x00" in text:
        raise BadInput(f"{what} holds a NUL.")
    return text
