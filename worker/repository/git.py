"""Runs git on the host, for the mirrors alone: hardened, bounded in time and bytes, never on a guest's files."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tatin_jobs.barerepo import HARDENED, git_environment
from tatin_jobs.errors import PartMissing
from tatin_jobs.tied import TIED

SMALL_SECONDS = 120
"""For what needs no network."""
SMALL_OUTPUT_BYTES = 2**16

CHECKED = (
    "-c", "fetch.fsckObjects=true",
    # Mistakes of old tools that are in many honest histories and can do no harm.
    "-c", "fetch.fsck.badTimezone=ignore",
    "-c", "fetch.fsck.missingSpaceBeforeDate=ignore",
    "-c", "fetch.fsck.missingSpaceBeforeEmail=ignore",
    "-c", "fetch.fsck.missingNameBeforeEmail=ignore",
    "-c", "fetch.fsck.missingEmail=ignore",
    "-c", "fetch.fsck.badEmail=ignore",
    "-c", "fetch.fsck.zeroPaddedDate=ignore",
    "-c", "fetch.fsck.badDateOverflow=ignore",
    "-c", "fetch.fsck.zeroPaddedFilemode=ignore",
    "-c", "fetch.fsck.missingTaggerEntry=ignore",
    "-c", "fetch.fsck.badTagName=ignore",
)  # fmt: skip
NETWORK = (
    "-c", "http.followRedirects=false",  # a redirect may lead anywhere (A27)
    "-c", "http.lowSpeedLimit=1000",
    "-c", "http.lowSpeedTime=60",
)  # fmt: skip


@dataclass(frozen=True)
class GitResult:
    """How a git command ended. ``stdout`` is None when it was longer than the limit; ``stderr`` is its end."""

    status: int
    stdout: bytes | None
    stderr: str


class Git:
    """git with the worker's own credentials and nothing of ``environ`` that points it elsewhere (A35)."""

    def __init__(self, environ: Mapping[str, str] | None = None, *, protocols: Sequence[str]) -> None:
        self._environ = git_environment(os.environ if environ is None else environ, protocols=":".join(protocols))

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout_seconds: float = SMALL_SECONDS,
        max_output_bytes: int = SMALL_OUTPUT_BYTES,
        max_file_bytes: int | None = None,
    ) -> GitResult:
        """Run ``git args`` to its end; ``max_file_bytes`` bounds each file that it writes, a pack above all. One with
        this limit ends with the worker, too, where it can be tied to it: the next worker's writes where it does.

        Raises:
            TimeoutError: the limit passed; git and what it started are dead.
            PartMissing: git is not installed.
        """
        return await self.run_argv(
            ["git", *HARDENED, *args],
            timeout_seconds=timeout_seconds,
            max_output_bytes=max_output_bytes,
            max_file_bytes=max_file_bytes,
        )

    async def run_argv(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float = SMALL_SECONDS,
        max_output_bytes: int = SMALL_OUTPUT_BYTES,
        max_file_bytes: int | None = None,
    ) -> GitResult:
        """As ``run``, for an argv that begins with git itself."""
        if max_file_bytes is not None:
            # The limit is set by a shell that becomes git: one of POSIX counts in blocks of 512 bytes.
            argv = [*TIED, "sh", "-c", 'ulimit -f "$0"; exec "$@"', str(max_file_bytes // 512), *argv]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environ,
                cwd="/",
                start_new_session=True,  # no terminal to ask at, and one group to kill
            )
        except FileNotFoundError as error:
            raise PartMissing("git is not installed on the worker.", try_="apt-get install git.") from error
        try:
            async with asyncio.timeout(timeout_seconds):
                stdout, stderr = await asyncio.gather(
                    _read_up_to(process.stdout, max_output_bytes), _read_tail(process.stderr, 2**14)
                )
                status = await process.wait()
        finally:
            await _end(process)
        return GitResult(status, stdout, stderr.decode(errors="replace"))


async def _read_up_to(stream: asyncio.StreamReader | None, limit: int) -> bytes | None:
    assert stream is not None  # it was opened as a pipe
    kept = bytearray()
    total = 0
    while chunk := await stream.read(2**16):
        total += len(chunk)
        kept += chunk[: limit - len(kept)]
    return bytes(kept) if total <= limit else None


async def _read_tail(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    assert stream is not None  # it was opened as a pipe
    kept = bytearray()
    while chunk := await stream.read(2**16):
        kept += chunk
        del kept[:-limit]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await asyncio.shield(process.wait())
