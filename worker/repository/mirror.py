"""The bare mirror of one address under ``<home>/repos``: fetched into, packed from, never checked out.

A commit that came whole is held by ``refs/tatin/<commit>``; that ref is what says that it need not be fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.barerepo import make_bare
from tatin_jobs.errors import RepositoryError
from tatin_jobs.repoaddress import Address
from tatin_jobs.units import format_size
from worker.repository.failures import failure, too_slow
from worker.repository.git import CHECKED, NETWORK, Git, GitResult
from worker.repository.refs import RefListing, parse_listing

LISTING_BYTES = 64 * 2**20
"""About a million refs; a remote with more is refused (A26)."""
LISTING_SECONDS = 120
MANY_PACKS = 50
LEFT = ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*")


@dataclass(frozen=True)
class FetchLimits:
    """What a fetch may cost (A26)."""

    seconds: float = 1800
    pack_bytes: int = 20 * 2**30


class Mirror:
    """Every method but ``list_refs`` must be called under ``lock_path``."""

    def __init__(
        self,
        repos: Path,
        address: Address,
        depth: int | None,
        git: Git,
        limits: FetchLimits,
        options: Sequence[str] = (),
    ) -> None:
        """``options``: more for each git that goes to the network (``-c name=value``)."""
        key = hashlib.sha256(address.url.encode()).hexdigest()
        # A shallow fetch would cut the history of a whole mirror, so each depth has its own.
        self.folder = repos / (f"{key}.git" if depth is None else f"{key}-{depth}.git")
        self.lock_path = repos / f"{self.folder.stem}.lock"
        self._address = address
        self._depth = depth
        self._git = git
        self._limits = limits
        self._network = (*NETWORK, *options)

    async def list_refs(self) -> RefListing:
        """What the remote offers now.

        Raises:
            RepositoryError: as ``fetch``.
        """
        args = [*self._network, "ls-remote", "--symref", "--", self._address.url]
        try:
            result = await self._git.run(args, timeout_seconds=LISTING_SECONDS, max_output_bytes=LISTING_BYTES)
        except TimeoutError:
            raise too_slow(self._address, LISTING_SECONDS) from None
        if result.status != 0:
            raise self._failure(result)
        if result.stdout is None:
            raise RepositoryError(f"The repository '{self._address.url}' has too many refs.")
        return parse_listing(result.stdout.decode(errors="replace"))

    async def fetch(self, commit: str) -> None:
        """Bring ``commit`` and its history, unless it is there already.

        Raises:
            RepositoryError: it cannot be had; says why as exactly as git told.
            DiskFull: the host has no room.
        """
        await self._prepare(commit)
        if await self._holds(commit):
            return
        self.touch()  # a long fetch is not taken for a mirror that nobody uses
        self._clear_left()
        result = await self._fetch_refs([f"+{commit}:refs/tatin/{commit}"])
        if result.status != 0 and "not our ref" not in result.stderr and "unadvertised object" not in result.stderr:
            raise self._failure(result)
        if result.status != 0:  # an old server gives only what a ref names: fetch all, and look whether it came
            result = await self._fetch_refs(["+refs/heads/*:refs/tatin-heads/*", "+refs/tags/*:refs/tatin-tags/*"])
            if result.status != 0:
                raise self._failure(result)
            await self._git.run([f"--git-dir={self.folder}", "update-ref", f"refs/tatin/{commit}", commit])
        if not await self._holds(commit):
            await self._git.run([f"--git-dir={self.folder}", "update-ref", "-d", f"refs/tatin/{commit}"])
            raise RepositoryError(
                f"The repository '{self._address.url}' has no commit {commit}.",
                try_="check `ref` in the job's repo; the commit may have been removed by a force-push.",
            )
        await self._repack()

    def touch(self) -> None:
        """Note that it is in use, for pruning by age."""
        os.utime(self.folder)

    async def _prepare(self, commit: str) -> None:
        if (self.folder / "HEAD").is_file():
            return
        shutil.rmtree(self.folder, ignore_errors=True)  # half made by a worker that died
        draft = self.folder.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        make_bare(draft, commit=commit, branch="tatin")
        draft.rename(self.folder)

    def _clear_left(self) -> None:
        """What a git has left that was killed: it tidies up only when it ends of itself, and each later one would fail
        at its lock. Nobody else's writes here: we have the lock, and one of a dead worker died with it (``TIED``; on a
        Mac it may go on, and this fetch or its own then fails)."""
        for pattern in LEFT:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    async def _repack(self) -> None:
        """Each fetch leaves a pack; now and then make few of many, or each later fetch is slower. It may fail."""
        if len(list((self.folder / "objects" / "pack").glob("*.pack"))) > MANY_PACKS:
            args = [f"--git-dir={self.folder}", "repack", "-d", "--geometric=2", "--quiet"]
            with suppress(TimeoutError):
                await self._git.run(args, timeout_seconds=self._limits.seconds)

    async def _holds(self, commit: str) -> bool:
        args = [f"--git-dir={self.folder}", "rev-parse", "--verify", "--quiet", f"refs/tatin/{commit}^{{commit}}"]
        result = await self._git.run(args)
        return result.status == 0 and result.stdout is not None and result.stdout.decode().strip() == commit

    async def _fetch_refs(self, refspecs: list[str]) -> GitResult:
        depth = [] if self._depth is None else [f"--depth={self._depth}", "--no-tags"]
        options = ["--quiet", "--no-write-fetch-head", "--no-recurse-submodules", *depth]
        where = [f"--git-dir={self.folder}", *self._network, *CHECKED]
        args = [*where, "fetch", *options, "--", self._address.url, *refspecs]
        try:
            return await self._git.run(
                args, timeout_seconds=self._limits.seconds, max_file_bytes=self._limits.pack_bytes
            )
        except TimeoutError:
            raise too_slow(self._address, self._limits.seconds) from None

    def _failure(self, result: GitResult) -> Exception:
        return failure(self._address, result, format_size(self._limits.pack_bytes))
