"""A repository with a bit of everything, its clone in a real sandbox, and trees that can be compared."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.localrepo import pack_local_repo
from tatin_jobs.models import Repo
from worker.collect import Collected, CollectLimits, CollectSpec, Snapshot, Unpackers, collect, snapshot
from worker.collect.guest_files import SNAPSHOT_FOLDERS
from worker.collect.snapshot import PIPES_SECONDS, SNAPSHOT_SECONDS
from worker.repository import PreparedRepo, Repositories, clone_into
from worker.sandboxes.base import GUEST_REPO, Sandbox, SandboxProvider, SandboxSpec
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.transfer import push_files

HOME_ID = "0a1b2c3d"
IDENTITY = {
    **{f"GIT_{who}_{what}": f"{who}@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
_LOOK = "from __future__ import annotations\nimport hashlib, os, stat\nfrom pathlib import Path"
Tree = dict[bytes, tuple[str, str]]


def git(folder: Path, *args: str, **environ: str) -> str:
    """Run git in ``folder`` and return what it printed; the test fails when git does."""
    env = {"PATH": os.environ["PATH"], **IDENTITY, **environ}
    done = subprocess.run(["git", "-C", str(folder), *args], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace").strip()


def commit(folder: Path, message: str = "change") -> str:
    """Commit all there is; returns the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return git(folder, "rev-parse", "HEAD")


def small_repository(folder: Path) -> Path:
    """One file, one commit, branch ``main``."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "a.txt").write_text("one\n")
    commit(folder, "first")
    return folder


def full_repository(folder: Path) -> Path:
    """Two commits of files of every kind that git knows."""
    small_repository(folder)
    (folder / "change.txt").write_text("".join(f"line {number}\n" for number in range(40)))
    (folder / "old name.txt").write_text("".join(f"row {number}\n" for number in range(40)))
    (folder / "gone.txt").write_text("to be deleted\n")
    (folder / "binary.dat").write_bytes(bytes(range(256)) * 8)
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a.txt")
    (folder / "dir/deeper").mkdir(parents=True)
    (folder / "dir/deeper/file.txt").write_text("deep\n")
    (folder / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    (folder / "windows.bat").write_bytes(b"one\r\ntwo\r\n")
    (folder / "empty").write_bytes(b"")
    (folder / "no newline").write_bytes(b"no newline at the end")
    (folder / "odd \t\n name \u00fc").write_text("odd\n")
    (folder / ".gitignore").write_text("ignored/\n*.log\n")
    (folder / ".gitattributes").write_text("*.bat text eol=crlf\n*.lfs filter=lfs diff=lfs merge=lfs -text\n")
    (folder / "big.lfs").write_text(LFS_POINTER)
    (folder / ".gitmodules").write_text('[submodule "sub"]\n\tpath = sub\n\turl = https://example.invalid/sub.git\n')
    git(folder, "add", "--all")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    (folder / "sub").mkdir()
    git(folder, "commit", "--quiet", "--message=second")
    return folder


def tree_of(folder: Path) -> Tree:
    """Path -> (kind and mode as git keeps them, digest) of all but ``.git`` and empty folders."""
    found: Tree = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b".git"]
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(path, name)))):
            if name == b".git":
                continue
            full = os.path.join(path, name)
            mode = os.lstat(full).st_mode
            if stat.S_ISLNK(mode):
                kind, data = "link", os.readlink(full)
            else:
                kind, data = ("755" if mode & 0o100 else "644"), Path(os.fsdecode(full)).read_bytes()
            found[os.path.relpath(full, os.fsencode(folder))] = (kind, hashlib.sha256(data).hexdigest())
    return found


@dataclass
class Clone:
    """``source`` cloned into a sandbox. ``repo`` is where the host sees the clone, if it does (bwrap): for the test to
    look at only."""

    sandbox: Sandbox
    source: Path
    prepared: PreparedRepo
    folder: Path
    repo: Path

    async def sh(self, line: str, cwd: str = GUEST_REPO) -> str:
        """What the agent does; the test fails when it does."""
        done = await self.sandbox.run(["bash", "-euc", line], cwd=cwd, env=IDENTITY)
        assert done.exit_status == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace")

    def spec(self, **changes: object) -> CollectSpec:
        values = {"base_commit": self.prepared.commit, "base_tar": self.prepared.tar, **changes}
        return CollectSpec(**values)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    async def bring_back(
        self,
        limits: CollectLimits | None = None,
        unpackers: Unpackers | None = None,
        *,
        last: bool = False,
        timeout_seconds: float = SNAPSHOT_SECONDS,
        pipes_seconds: float = PIPES_SECONDS,
        **changes: object,
    ) -> tuple[Snapshot, Collected]:
        """Snapshot and collect into ``folder``, with every process of the guest dead. ``last`` and the
        times: as for ``snapshot``."""
        await self.sandbox.kill_all()
        spec = self.spec(**changes)
        times = {"timeout_seconds": timeout_seconds, "pipes_seconds": pipes_seconds}
        taken = await snapshot(self.sandbox, spec, limits, last=last, **times)
        return taken, await collect(self.sandbox, spec, self.folder, limits, taken=taken, unpackers=unpackers)

    async def tree(self) -> Tree:
        """What lies in the guest's clone, seen from inside."""
        source = f"{_LOOK}\n{inspect.getsource(tree_of)}\nprint(repr(tree_of(Path.cwd())))"
        argv = ["/usr/bin/python3", "-I", "-B", "-c", source]
        done = await self.sandbox.run(argv, cwd=GUEST_REPO, max_output_bytes=2**22)
        assert done.exit_status == 0, done.stderr.decode(errors="replace")
        found: Tree = ast.literal_eval(done.stdout.decode())
        return found

    def fresh_clone(self) -> Path:
        """A clone of the source at the same commit, made on the host as a user would."""
        target = self.folder / "fresh"
        git(self.folder, "clone", "--quiet", str(self.source), str(target))
        git(target, "checkout", "--quiet", self.prepared.commit)
        return target

    def applied(self) -> Tree:
        """The tree of a fresh clone after ``git apply`` of the patch that came back."""
        target = self.fresh_clone()
        if (self.folder / "changes.patch").stat().st_size:
            git(target, "apply", str(self.folder / "changes.patch"))
        return tree_of(target)


def _bwrap(home: Home) -> SandboxProvider:
    return BwrapProvider(home, home.id())


@asynccontextmanager
async def sandbox_in(
    folder: Path, provider_of: Callable[[Home], SandboxProvider] = _bwrap
) -> AsyncIterator[tuple[Sandbox, Home]]:
    """A sandbox of a home of its own."""
    home = Home(folder / "home")
    home.prepare()
    (home.root / "id").write_text(HOME_ID)
    provider = provider_of(home)
    disk_mib = 60_000  # room for a sparse file of 50 GiB: what a guest may not write at all, collecting never meets
    spec = SandboxSpec(name=f"tatin-{HOME_ID}-clone-1", cpus=1, memory_mib=1024, disk_mib=disk_mib)
    sandbox = await provider.create(spec)
    try:
        yield sandbox, home
    finally:
        await provider.destroy(sandbox.name)


async def cloned(sandbox: Sandbox, home: Home, source: Path, folder: Path, depth: int | None = None) -> Clone:
    """``source`` cloned into ``sandbox``, in place of what was there before; results go to ``folder``."""
    await sandbox.kill_all()
    line = "for d; do chmod -R u+rwx $d; find $d -mindepth 1 -delete; done; mkdir -p /home/agent/work"
    await sandbox.run(["sh", "-c", line, "sh", "/home/agent", "/run/tatin"])
    packed = pack_local_repo(source, None, Blobs(home.blobs), depth=depth)
    prepared = await Repositories(home).prepare(Repo(blob=packed.blob, commit=packed.commit), ref_commit=None)
    await push_files(sandbox, SNAPSHOT_FOLDERS)
    await clone_into(sandbox, prepared)
    return Clone(sandbox, source, prepared, folder, home.sandboxes / sandbox.name / "home" / "work" / "repo")
