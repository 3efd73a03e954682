"""Everything that is kept of a guest, streamed out of it and unpacked on the host."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from tatin_jobs.errors import DiskFull, SandboxError
from tatin_jobs.results import sync_folder
from worker.collect.globs import Search, plan_search
from worker.collect.snapshot import BESIDE
from worker.collect.spec import Artifact, Collected, CollectSpec, Snapshot
from worker.collect.unpackers import Unpackers
from worker.sandboxes.base import GuestProcess, Sandbox
from worker.unpacker.layout import ARTIFACTS, BUNDLE_FILE, MANIFEST_FILE, PATCH_FILE, TRANSCRIPT, CollectLimits
from worker.unpacker.names import shown
from worker.unpacker.unpack import Unpacked, Unpacker

COLLECT_SECONDS = 1800
STAGING = ".collecting"
_SCRIPT: Final = BESIDE + Path(__file__).with_name("pull.sh").read_text()
_CHUNK_BYTES = 2**18
_PLACES = (ARTIFACTS, TRANSCRIPT, BUNDLE_FILE, PATCH_FILE, MANIFEST_FILE)
"""What may come to lie in an attempt's folder, in the order in which it is put there."""


async def collect(
    sandbox: Sandbox,
    spec: CollectSpec,
    folder: Path,
    limits: CollectLimits | None = None,
    *,
    taken: Snapshot | None = None,
    timeout_seconds: float = COLLECT_SECONDS,
    unpackers: Unpackers | None = None,
) -> Collected:
    """Bring the snapshot, the artifacts and the transcripts into ``folder``; all of it is on the disk on return.
    ``taken``: the snapshot; with a patch in it the guest is asked for nothing.

    What is cut off, by the limit of time or by the sandbox's death, leaves what came whole and says so in
    ``incomplete``. ``unpackers``: those of the worker; None starts a child for this call alone. Safe to call again:
    what an earlier call put there is replaced.

    Raises:
        DiskFull: the host has no room; nothing was put into ``folder``.
        AttemptError: the unpacking child was ended by its limits; nothing was put into ``folder``.
        SandboxError: the sandbox could start nothing.
    """
    limits = limits or CollectLimits()
    search = plan_search(spec.artifact_globs, home=spec.home, repo_path=spec.repo_path)
    staging = folder / STAGING
    patch = taken.patch if taken else None
    published = False
    try:
        staging.mkdir(parents=True)
    except FileExistsError:  # an earlier call was killed
        await asyncio.to_thread(_make_empty, staging)
    try:
        if patch is not None:
            unpacked = await asyncio.to_thread(_take_patch, patch, staging, folder, limits, spec.home)
            incomplete = unpacked.incomplete
        else:
            argv = _argv(spec, search, limits)
            unpacked, incomplete = await _pull(sandbox, argv, staging, spec.home, limits, timeout_seconds, unpackers)
        if unpacked.disk_full:
            raise DiskFull(
                f"The host has no room for the results of sandbox '{sandbox.name}'.",
                seen=unpacked.incomplete,
                try_="`tatin prune`, or free some space.",
            )
        if patch is None:
            await asyncio.to_thread(_publish, staging, folder)
        published = True
    finally:
        if not published:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return _collected(unpacked, search, incomplete)


async def _pull(
    sandbox: Sandbox,
    argv: Sequence[str],
    staging: Path,
    home: str,
    limits: CollectLimits,
    timeout_seconds: float,
    unpackers: Unpackers | None,
) -> tuple[Unpacked, str | None]:
    """Unpack what the guest sends; also why that is not all, where it is not."""
    async with AsyncExitStack() as stack:
        if unpackers is None:
            unpackers = await stack.enter_async_context(Unpackers())
        process = await stack.enter_async_context(sandbox.exec(argv, cwd="/"))
        await process.close_stdin()
        stream = _Stream(process, timeout_seconds)
        unpacked = await unpackers.unpack(staging, stream.data(), limits, home=home)
        return unpacked, stream.cut or unpacked.incomplete or await stream.ending()


def _take_patch(patch: bytes, staging: Path, folder: Path, limits: CollectLimits, home: str) -> Unpacked:
    """Unpack and publish a patch that is here already. Its name is ours and its bytes are read by nobody, so no child
    need stand between."""
    member = tarfile.TarInfo(PATCH_FILE)
    member.size = len(patch)
    tar = member.tobuf(tarfile.USTAR_FORMAT) + patch + bytes(-len(patch) % tarfile.BLOCKSIZE)
    unpacked = Unpacker(str(staging), limits, home).run(io.BytesIO(tar).read)
    if not unpacked.disk_full:
        _publish(staging, folder)
    return unpacked


class _Stream:
    """The stdout of a process in the guest, up to its end, its death or the limit of time."""

    def __init__(self, process: GuestProcess, timeout_seconds: float) -> None:
        self._process = process
        self._timeout_seconds = timeout_seconds
        self._stderr = bytearray()
        self._ended = False
        self.cut: str | None = None
        """What cut the stream off."""

    async def data(self) -> AsyncGenerator[bytes, None]:
        """The stream; it ends early, and ``cut`` says why, rather than to raise."""
        draining = asyncio.create_task(self._drain_stderr())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        try:
            while True:
                self._check(loop.time(), deadline)
                async with asyncio.timeout_at(deadline):
                    chunk = await self._process.read("stdout", _CHUNK_BYTES)
                if not chunk:
                    break
                yield chunk
            async with asyncio.timeout_at(deadline):
                await draining
            self._ended = True
        except TimeoutError:
            self.cut = f"collecting took longer than {self._timeout_seconds:g} s"
        except SandboxError as error:
            self.cut = f"the sandbox died: {error.what}"
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

    def _check(self, now: float, deadline: float) -> None:
        """A read that need not wait never meets the timeout around it, and a guest may keep all reads so."""
        if now >= deadline:
            raise TimeoutError

    async def ending(self) -> str | None:
        """What the guest's side complained of; None when all went well, or the stream was given up."""
        if not self._ended:
            return None
        try:
            status = await self._process.wait()
        except SandboxError as error:
            return f"the sandbox died: {error.what}"
        if status == 0:
            return None
        lines = bytes(self._stderr).strip().splitlines()
        return shown(lines[0]) if lines else f"exit status {status} in the guest"

    async def _drain_stderr(self) -> None:
        while chunk := await self._process.read("stderr"):
            self._stderr += chunk[: 4096 - len(self._stderr)]


def _argv(spec: CollectSpec, search: Search, limits: CollectLimits) -> list[str]:
    transcripts = [path[1:] for path in spec.transcript_paths if path.startswith("/") and path.isprintable()]
    lists = ("\n".join(paths) for paths in (search.roots, search.repo_roots, transcripts))
    own = (spec.home, spec.snapshot_path, spec.repo_below_home, search.pattern, str(limits.file_bytes))
    return ["/bin/sh", "-c", _SCRIPT, "sh", *own, *lists]


def _make_empty(staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)


def _publish(staging: Path, folder: Path) -> None:
    """Put the finished pieces in their places, the manifest last; ``staging`` is gone then."""
    made, there = set(os.listdir(staging)), set(os.listdir(folder))
    for name in _PLACES:
        if name in there:
            _remove(folder / name)
    for name in _PLACES:
        if name in made:
            (staging / name).rename(folder / name)
    shutil.rmtree(staging, ignore_errors=True)
    sync_folder(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _collected(unpacked: Unpacked, search: Search, incomplete: str | None) -> Collected:
    sizes = {kept.name: kept.size_bytes for kept in unpacked.files}

    def below(place: str) -> tuple[Artifact, ...]:
        found = [kept for kept in unpacked.files if kept.name.startswith(f"{place}/")]
        return tuple(Artifact(kept.name.removeprefix(f"{place}/"), kept.size_bytes, kept.sha256) for kept in found)

    more = [f"and {unpacked.refused_more} more"] if unpacked.refused_more else []
    return Collected(
        patch_bytes=sizes.get(PATCH_FILE),
        bundle_bytes=sizes.get(BUNDLE_FILE),
        artifacts=below(ARTIFACTS),
        transcripts=below(TRANSCRIPT),
        refused=(*search.unusable, *unpacked.refused, *more),
        incomplete=incomplete,
    )
