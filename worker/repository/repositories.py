"""Address in, tar of one commit out; each fetched and packed once, however many jobs ask at the same time."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tatin_jobs.barerepo import FULL_COMMIT, fill_argv, make_bare, pack_refs_argv, usable_branch, write_tar
from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import DiskFull, RepositoryError, TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import Repo
from tatin_jobs.repoaddress import SCHEMES, Address, parse_address
from worker.repository.address import pinned, public_addresses
from worker.repository.failures import failure
from worker.repository.flight import SingleFlight
from worker.repository.git import Git
from worker.repository.locks import file_lock
from worker.repository.mirror import FetchLimits, Mirror
from worker.repository.prepared import PreparedRepo
from worker.repository.refs import RefListing

PACKED_DAYS = 7
MIRROR_DAYS = 60
_DAY = 86_400
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_USE_SECONDS = 3600
"""What was used this lately is never pruned: somebody may be about to read it."""

log = logging.getLogger(__name__)


class Repositories:
    """The repositories of one worker. Used from its event loop only; the folders may be shared between processes."""

    def __init__(
        self,
        home: Home,
        *,
        private_addresses: bool = False,
        allow_file: bool = False,
        environ: Mapping[str, str] | None = None,
        limits: FetchLimits | None = None,
        packed_bytes: int = 10 * 2**30,
    ) -> None:
        """``private_addresses``: jobs may clone from this host and its LAN. ``allow_file``: file:// addresses too, for
        tests. ``environ``: the environment that git's own is made from; the process's by default. ``packed_bytes``:
        how much of packed commits is kept for the next job."""
        self._home = home
        self._private_addresses = private_addresses
        self._allow_file = allow_file
        self._git = Git(environ, protocols=(*SCHEMES, "file") if allow_file else SCHEMES)
        self._local_git = Git(environ, protocols=("file",))
        self._limits = limits or FetchLimits()
        self._packed_bytes = packed_bytes
        self._listings: SingleFlight[str, RefListing] = SingleFlight()
        self._builds: SingleFlight[Path, Path] = SingleFlight()

    async def prepare(self, repo: Repo, *, ref_commit: str | None) -> PreparedRepo:
        """Make ``repo`` ready for a guest. ``ref_commit``: what its ref was resolved to in this batch, None: not yet.

        Raises:
            RepositoryError: the repository or its ref cannot be had; reason network when trying again may help.
            DiskFull: the host has no room.
            PartMissing: git is not installed.
        """
        if repo.blob is not None:
            return self._from_blob(repo)
        address = parse_address(repo.url or "", allow_file=self._allow_file)
        if repo.ref is not None and (repo.ref.startswith("-") or not repo.ref.isprintable()):
            raise RepositoryError(f"The ref {repo.ref[:100]!r} of '{address.url}' is no name of a ref.")
        commit = ref_commit or repo.commit
        listing = None
        if commit is None:
            listing = await self._list(address)
            commit = listing.resolve(address, repo.ref)
        if FULL_COMMIT.fullmatch(commit) is None:
            raise RepositoryError(f"'{commit[:80]}' is no full commit id of '{address.url}'.")
        tar = self._packed_path(address, commit, repo)
        if not _touch(tar):
            await self._builds.do(tar, lambda: self._build(address, commit, repo, listing, tar))
        return PreparedRepo(tar, commit, address.url)

    async def prune(self, now: float | None = None) -> None:
        """Remove packed commits and mirrors that were not used for long, and packed ones over the size limit."""
        await asyncio.to_thread(_prune, self._packed, self._packed_bytes, now or time.time())

    @property
    def _packed(self) -> Path:
        return self._home.repos / "packed"

    def _from_blob(self, repo: Repo) -> PreparedRepo:
        shown = repo.path or repo.blob or ""
        try:
            tar = Blobs(self._home.blobs).path(repo.blob or "")
        except TatinError as error:
            raise RepositoryError(
                f"The job names no packed repository for {shown[:200]!r}.", seen=error.what
            ) from error
        if repo.commit is None or FULL_COMMIT.fullmatch(repo.commit) is None:
            raise RepositoryError(f"The job names no commit of the packed repository {shown[:200]!r}.")
        if not tar.is_file():
            raise RepositoryError(
                f"The packed repository of {shown[:200]!r} is not on this worker.",
                try_="submit from the worker's host, or give the repository's address instead of a local path.",
            )
        return PreparedRepo(tar, repo.commit, None)

    def _packed_path(self, address: Address, commit: str, repo: Repo) -> Path:
        key = "\0".join((address.url, commit, str(repo.depth), repo.ref or ""))
        return self._packed / f"{hashlib.sha256(key.encode()).hexdigest()}.tar"

    async def _list(self, address: Address) -> RefListing:
        mirror = await self._mirror(address, None)
        return await self._listings.do(address.url, mirror.list_refs)

    async def _mirror(self, address: Address, depth: int | None) -> Mirror:
        """The mirror of an address, once it is known that jobs may reach it."""
        options = () if self._private_addresses else pinned(address, await public_addresses(address))
        return Mirror(self._home.repos, address, depth, self._git, self._limits, options)

    async def _build(self, address: Address, commit: str, repo: Repo, listing: RefListing | None, tar: Path) -> Path:
        try:
            await self._fetch_and_pack(address, commit, repo, listing, tar)
            await self.prune()
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise DiskFull(
                f"The host has no room for the repository '{address.url}'.",
                seen=str(error),
                try_="`tatin prune`, or free some space.",
            ) from error
        return tar

    async def _fetch_and_pack(
        self, address: Address, commit: str, repo: Repo, listing: RefListing | None, tar: Path
    ) -> None:
        started = time.monotonic()
        self._packed.mkdir(mode=0o700, parents=True, exist_ok=True)
        branch = None
        if repo.ref is None or FULL_COMMIT.fullmatch(repo.ref) is None:
            branch = (listing or await self._list(address)).branch(repo.ref)
        mirror = await self._mirror(address, repo.depth)
        async with file_lock(mirror.lock_path):
            await mirror.fetch(commit)
            mirror.touch()
            await self._pack(address, mirror, commit, usable_branch(branch), repo.depth, tar)
        seconds = time.monotonic() - started
        log.info("action=fetch repo=%s commit=%s seconds=%.2f", address.url, commit, seconds)

    async def _pack(
        self, address: Address, mirror: Mirror, commit: str, branch: str, depth: int | None, tar: Path
    ) -> None:
        draft = self._packed / f".new-{os.getpid()}-{secrets.token_hex(4)}"
        bare = draft / "bare"
        try:
            make_bare(bare, commit=commit, branch=branch)
            fill = fill_argv(bare, mirror.folder, commit=commit, branch=branch, depth=depth, origin=True)
            for argv in (fill, pack_refs_argv(bare)):
                result = await self._local_git.run_argv(argv, timeout_seconds=self._limits.seconds)
                if result.status != 0:
                    raise failure(address, result, "")
            await asyncio.to_thread(_write_aside, bare, draft / "tar", tar)
        finally:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)


def _write_aside(bare: Path, draft: Path, tar: Path) -> None:
    with draft.open("wb") as out:
        write_tar(bare, out)
        out.flush()
        os.fsync(out.fileno())  # its name is not that of its bytes: half of it would never be noticed
    draft.replace(tar)


def _touch(path: Path) -> bool:
    """Whether it is there; if so it counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _prune(packed: Path, packed_bytes: int, now: float) -> None:
    """Other workers of this home may prune too, so what is gone already is no error."""
    total = 0
    entries = [(used, size, path) for path in packed.glob("*.tar") for used, size in _facts(path)]
    for used, size, path in sorted(entries, reverse=True):
        total += size
        if now - used > _IN_USE_SECONDS and (total > packed_bytes or now - used > PACKED_DAYS * _DAY):
            path.unlink(missing_ok=True)
    for pattern, days in ((".new-*", 1), ("../*.git", MIRROR_DAYS)):
        for folder in packed.glob(pattern):
            if any(now - used > days * _DAY for used, _ in _facts(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _facts(path: Path) -> list[tuple[float, int]]:
    """(when it was last used, size in bytes); nothing when it is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []
    return [(found.st_mtime, found.st_size)]
