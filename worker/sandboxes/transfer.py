"""Files into a guest: a tar over ``exec``, for every provider alike."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import GuestProcess, Sandbox, together

BLOCK = 256 * 1024
FOLDER_SECONDS = 60
PUSH_SECONDS = 30 * 60
STDERR_BYTES = 4096
_MAKE_NEW = """
[ -w "${0%/*}" ] && [ -x "${0%/*}" ] || chmod u+rwx "${0%/*}"
[ -L "$0" ] || chmod -R u+rwx "$0" 2>/dev/null
rm -rf "$0" && mkdir "$0"
"""
"""chmod follows a link that is named to it."""


async def push_files(sandbox: Sandbox, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """Write files at absolute paths of the guest; folders are made, files that exist are replaced.

    Raises:
        SandboxError: the guest could not take them (its disk is full, a path is in the way).
    """
    if files and not await sandbox.put(files, mode):
        await push_tar(sandbox, [_pack(files, mode)], "/")


async def push_tar(sandbox: Sandbox, parts: Sequence[bytes | Path], target: str) -> None:
    """Unpack a tar, given as bytes or files to be read one after the other, in the folder ``target`` of the guest.

    Raises:
        SandboxError: as ``push_files``.
    """
    argv = ["tar", "-xof", "-", "-C", target]
    try:
        async with asyncio.timeout(PUSH_SECONDS), sandbox.exec(argv) as process:
            status, seen = await feed(process, parts)
    except TimeoutError as error:
        raise SandboxError(f"Files were not taken by sandbox '{sandbox.name}' in {PUSH_SECONDS} s.") from error
    if status:
        raise SandboxError(f"Files could not be put into sandbox '{sandbox.name}'.", seen=seen or f"tar: {status}")


async def make_new_folder(sandbox: Sandbox, path: str) -> None:
    """An empty folder in one of ours in the guest, whatever the agent has made of both.

    Raises:
        SandboxError: the guest cannot make it. CommandTimeout: not within ``FOLDER_SECONDS``.
    """
    done = await sandbox.run(["/bin/sh", "-c", _MAKE_NEW, path], cwd="/", timeout_seconds=FOLDER_SECONDS)
    if done.exit_status != 0:
        seen = done.stderr.decode(errors="replace").strip()[-300:]
        raise SandboxError(f"The folder '{path}' cannot be made in sandbox '{sandbox.name}'.", seen=seen)


async def feed(process: GuestProcess, parts: Sequence[bytes | Path]) -> tuple[int, str]:
    """Give ``parts`` to a program in the guest, one after the other on its stdin, whatever it prints meanwhile.

    Returns its exit status and the end of its stderr.

    Raises:
        SandboxError: the sandbox died.
        OSError: a part cannot be read.
    """
    stderr = bytearray()
    await together(_write(process, parts), _drain(process, "stdout", bytearray()), _drain(process, "stderr", stderr))
    return await process.wait(), stderr.decode(errors="replace").strip()


async def _write(process: GuestProcess, parts: Sequence[bytes | Path]) -> None:
    async for block in _blocks(parts):
        await process.write(block)
    await process.close_stdin()


async def _drain(process: GuestProcess, stream: Literal["stdout", "stderr"], kept: bytearray) -> None:
    while chunk := await process.read(stream):
        kept += chunk
        del kept[:-STDERR_BYTES]


async def _blocks(parts: Sequence[bytes | Path]) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
        else:
            with part.open("rb") as file:
                more = True
                while more:
                    block = await asyncio.to_thread(file.read, BLOCK)
                    more = len(block) == BLOCK  # of a plain file: less is its end
                    yield block


def _pack(files: Mapping[str, bytes], mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
