"""What every build of an image is made of: one at a time, each step with its log, ended with all that it started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tatin_jobs.errors import BadInput, TatinError
from tatin_jobs.tied import TIED

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
"""Before a step's command: its mounts are nobody else's, and whatever ends the build ends every process of it (Linux,
as root)."""
_TIED = (*TIED, "/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')
"""Then our own process id, and the command: it dies with us, and is not begun when we died before it was tied."""
END_SECONDS = 20.0
FULL_BYTES = 16 * 2**20
Report = Callable[[str], None]
"""Gets a line for each step."""


def read_certificate(path: Path) -> bytes:
    """A certificate authority that the image is to trust. Raises BadInput: it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"The certificate '{path}' cannot be read.", seen=str(error)) from error
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise BadInput(f"'{path}' is no certificate in PEM form.")
    return data


def run_step(argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
    """Run one step; its output goes to ``log``. Ctrl-C, or any other end of ours, ends all that it started.

    Raises:
        TatinError: it failed.
    """
    is_alone = argv[: len(ALONE)] == [*ALONE]
    tied = (*_TIED, str(os.getpid())) if is_alone else ()
    env = {**env, "PATH": f"{env.get('PATH', '')}:{SYSTEM_PATH}".lstrip(":")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["nice", "-n", "5", *tied, *argv],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                _end(process, alone=is_alone)
    if status:
        what = f"Building the image failed in '{log.stem}' (exit status {status})."
        said = "\n".join(log.read_text(errors="replace").splitlines()[-12:])[-2000:]
        if shutil.disk_usage(log.parent).free < FULL_BYTES:  # then the log has no word of it
            raise TatinError(what, seen=f"{said}\nthe disk of '{log.parent}' is full".strip(), try_="tatin prune")
        raise TatinError(what, seen=said)


def _end(process: subprocess.Popen[bytes], *, alone: bool) -> None:
    if alone:  # the first process of its own: with that all are gone, and `unshare` ends when they are
        with suppress(psutil.Error):
            for first in psutil.Process(process.pid).children():
                first.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
