"""Address in, tar of one commit out; each fetched and packed once, however many jobs ask at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tatin_jobs.barerepo import FULL_COMMIT, fill_argv, make_bare, pack_refs_argv, usable_branch, write_tar
from tatin_jobs.errors import RepositoryError
from tatin_jobs.home import Home
from tatin_jobs.models import Repo
from worker.repository.address import SCHEMES, Address, parse_address, refuse_private
from worker.repository.failures import failure
from worker.repository.flight import SingleFlight
from worker.repository.git import Git
from worker.repository.locks import file_lock
from worker.repository.mirror import FetchLimits, Mirror
from worker.repository.prepared import PreparedRepo
from worker.repository.refs import RefListing

PACKED_DAYS = 7
MIRROR_DAYS = 60
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
        await asyncio.to_thread(_prune, self._home.repos, self._packed, self._packed_bytes, now or time.time())

    @property
    def _packed(self) -> Path:
        return self._home.repos / "packed"

    def _from_blob(self, repo: Repo) -> PreparedRepo:
        tar = self._home.blobs / (repo.blob or "")
        if repo.commit is None or not tar.is_file():
            raise RepositoryError(
                f"The packed repository of '{repo.path or repo.blob}' is not on this worker.",
                try_="submit from the worker's host, or give the repository's address instead of a local path.",
            )
        return PreparedRepo(tar, repo.commit, None)

    def _packed_path(self, address: Address, commit: str, repo: Repo) -> Path:
        key = "\0".join((address.url, commit, str(repo.depth), repo.ref or ""))
        return self._packed / f"{hashlib.sha256(key.encode()).hexdigest()}.tar"

    async def _list(self, address: Address) -> RefListing:
        await self._check(address)
        mirror = self._mirror(address, None)
        return await self._listings.do(address.url, mirror.list_refs)

    async def _check(self, address: Address) -> None:
        if not self._private_addresses:
            await refuse_private(address)

    def _mirror(self, address: Address, depth: int | None) -> Mirror:
        return Mirror(self._home.repos, address, depth, self._git, self._limits)

    async def _build(self, address: Address, commit: str, repo: Repo, listing: RefListing | None, tar: Path) -> Path:
        await self._check(address)
        started = time.monotonic()
        self._packed.mkdir(mode=0o700, parents=True, exist_ok=True)
        branch = usable_branch((listing or await self._list(address)).branch(repo.ref))
        mirror = self._mirror(address, repo.depth)
        async with file_lock(mirror.lock_path):
            await mirror.fetch(commit)
            mirror.touch()
            await self._pack(address, mirror, commit, branch, repo.depth, tar)
        seconds = time.monotonic() - started
        log.info("action=fetch repo=%s commit=%s seconds=%.2f", address.url, commit, seconds)
        await self.prune()
        return tar

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
    draft.replace(tar)


def _touch(path: Path) -> bool:
    """Whether it is there; if so it counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _prune(repos: Path, packed: Path, packed_bytes: int, now: float) -> None:
    """Other workers of this home may prune too, so what is gone already is no error."""
    total = 0
    entries = sorted(((path.stat().st_mtime, path) for path in packed.glob("*.tar")), reverse=True)
    for used, path in entries:
        total += path.stat().st_size
        if now - used > _IN_USE_SECONDS and (total > packed_bytes or now - used > PACKED_DAYS * 86_400):
            path.unlink(missing_ok=True)
    for folder in packed.glob(".new-*"):
        if now - folder.stat().st_mtime > 86_400:
            shutil.rmtree(folder, ignore_errors=True)
    for mirror in repos.glob("*.git"):
        if now - mirror.stat().st_mtime > MIRROR_DAYS * 86_400:
            shutil.rmtree(mirror, ignore_errors=True)
