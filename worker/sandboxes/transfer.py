"""Files into a guest and streams out of it: tar over ``exec``, for every provider alike."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import Sandbox

BLOCK = 256 * 1024
PUSH_SECONDS = 30 * 60


async def push_files(sandbox: Sandbox, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """Write files at absolute paths of the guest; folders are made, files that exist are replaced.

    Raises:
        SandboxError: the guest could not take them (its disk is full, a path is in the way).
    """
    if files:
        await push_tar(sandbox, [_pack(files, mode)], "/")


async def push_tar(sandbox: Sandbox, parts: Sequence[bytes | Path], target: str) -> None:
    """Unpack a tar, given as bytes or files to be read one after the other, under ``target`` in the guest."""
    argv = ["tar", "--extract", "--no-same-owner", "--no-overwrite-dir", "--directory", target]
    try:
        async with asyncio.timeout(PUSH_SECONDS), sandbox.exec(argv) as process:
            async for block in _blocks(parts):
                await process.write(block)
            await process.close_stdin()
            seen = b""
            while chunk := await process.read("stderr"):
                seen = (seen + chunk)[-2000:]
            status = await process.wait()
    except TimeoutError as error:
        raise SandboxError(f"Files were not taken by sandbox '{sandbox.name}' in {PUSH_SECONDS} s.") from error
    if status:
        text = seen.decode(errors="replace").strip()
        raise SandboxError(f"Files could not be put into sandbox '{sandbox.name}'.", seen=text or f"tar: {status}")


async def _blocks(parts: Sequence[bytes | Path]) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
        else:
            with part.open("rb") as file:
                while block := await asyncio.to_thread(file.read, BLOCK):
                    yield block


def _pack(files: Mapping[str, bytes], mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
