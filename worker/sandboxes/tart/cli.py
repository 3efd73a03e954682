"""Tart's command line, as far as Tatin uses it. Its facts were read in Tart 2.35; it was not tried on a Mac.

Every command has a time limit of ours, since Tart waits for its locks without one. stdout and stderr are read apart,
and what is on stderr is no failure by itself: Tart complains there of its housekeeping and goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import PartMissing, SandboxError
from worker.sandboxes import relay

LIST_SECONDS = 30.0
SET_SECONDS = 60.0
CLONE_SECONDS = 180.0
IP_SECONDS = 20.0
EXEC_SECONDS = 60.0
STOP_SECONDS = 10
"""What ``tart stop`` waits before it kills."""
DELETE_SECONDS = 60.0
LIST_TRIES = 3
"""``list`` fails as a whole when a VM is deleted while it reads."""
MAX_OUTPUT_BYTES = 4 * 2**20
_MORE_PATH = ("/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
"""launchd's PATH has no Homebrew."""
_RELAY = Path(relay.__file__).read_text()
_QUIETLY = 'exec 3>&2 2>/dev/null; exec "$@"'
"""What comes on stderr is the guest's to fill, and asyncssh would read it as the connection's. The pipe itself stays
open: its end would be the connection's."""


@dataclass(frozen=True)
class Called:
    """How a command of Tart ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What it said of its failure, in one line."""
        text = " ".join((self.stderr.strip() or self.stdout.strip()).split())
        return f"exit {self.status}: {text[-300:]}" if text else f"exit {self.status}"


@dataclass(frozen=True)
class Row:
    """One line of ``tart list``. ``disk_gb``: the disk's size for the guest, in units of 10^9 bytes."""

    name: str
    is_local: bool
    is_running: bool
    disk_gb: int


def search_path(environ: Mapping[str, str] | None = None) -> str:
    """PATH with the folders where Homebrew puts Tart and softnet."""
    path = (os.environ if environ is None else environ).get("PATH", os.defpath)
    return os.pathsep.join(dict.fromkeys([*path.split(os.pathsep), *_MORE_PATH]))


def find_tart() -> str:
    """Its program.

    Raises:
        PartMissing: it is not on this host.
    """
    program = shutil.which("tart", path=search_path())
    if program is None:
        raise PartMissing(
            "Tart is not on this host.", try_="on a Mac with Apple silicon: brew install openai/tools/tart"
        )
    return program


def tart_environment() -> dict[str, str]:
    """What Tart's processes are given: nothing of the worker's but what Tart itself reads (A72)."""
    kept = ("HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "TART_HOME")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environ, "PATH": search_path(), "TART_NO_AUTO_PRUNE": "1", "CI": "1"}


def exec_proxy(name: str, port: int = 22) -> tuple[str, ...]:
    """A program whose stdin and stdout are a connection to this port of the guest's loopback, by vsock.

    Raises:
        PartMissing: there is no Tart.
    """
    variables = [f"{name}={value}" for name, value in tart_environment().items()]
    inside = ("/usr/bin/python3", "-I", "-S", "-B", "-c", _RELAY, str(port))
    clean = ("/usr/bin/env", "-i", *variables, "/bin/sh", "-c", _QUIETLY, "sh")
    return (*clean, find_tart(), "exec", "-i", name, *inside)


def tart_home() -> Path:
    """Where Tart keeps its machines."""
    text = os.environ.get("TART_HOME")
    return Path(text) if text else Path.home() / ".tart"


async def call(*arguments: str, seconds: float, stdin: bytes | None = None) -> Called:
    """Run ``tart`` with these arguments.

    Raises:
        SandboxError: it had not ended after ``seconds``; it is dead then.
        PartMissing: there is no Tart.
    """
    process = await asyncio.create_subprocess_exec(
        find_tart(),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=tart_environment(),
        cwd="/",
        start_new_session=True,
        limit=MAX_OUTPUT_BYTES,
    )
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError as error:
        raise SandboxError(f"`tart {arguments[0]}` had not ended after {seconds:g} s.") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    assert process.returncode is not None  # it was waited for
    return Called(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def must(*arguments: str, seconds: float, what: str) -> str:
    """As ``call``; its stdout.

    Raises:
        SandboxError: it failed: ``what`` with Tart's own words.
    """
    done = await call(*arguments, seconds=seconds)
    if done.status:
        raise SandboxError(what, seen=f"`tart {arguments[0]}`: {done.words}")
    return done.stdout


async def list_machines() -> Sequence[Row]:
    """All machines and images of this user.

    Raises:
        SandboxError: the answer cannot be had or read; then nothing may be concluded from it (F11).
    """
    for tried in range(LIST_TRIES):
        done = await call("list", "--format", "json", seconds=LIST_SECONDS)
        if done.status == 0:
            return read_rows(done.stdout)
        await asyncio.sleep(0.2 * (tried + 1))
    raise SandboxError("Tart does not list its machines.", seen=done.words, try_="`tart list`")


def read_rows(text: str) -> Sequence[Row]:
    """The rows of ``tart list --format json``.

    Raises:
        SandboxError: it is not that.
    """
    try:
        return [
            Row(str(row["Name"]), str(row["Source"]) == "local", str(row["State"]) == "running", int(row["Disk"]))
            for row in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise SandboxError("Tart lists its machines in a way that cannot be read.", seen=text[:200]) from error
