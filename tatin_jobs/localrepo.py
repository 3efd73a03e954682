"""A local repository, packed by the submitter: one commit goes along with the job, uncommitted files are named.

The repository is the user's own and trusted, so git may run in it; nothing in it is changed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.barerepo import (
    HARDENED,
    fill_argv,
    git_environment,
    make_bare,
    near,
    pack_refs_argv,
    usable_branch,
    write_tar,
)
from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import BadInput, PartMissing, TatinError

_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class PackedRepo:
    """A local repository's commit, ready to travel.

    ``blob`` is the sha256 of a tar of a bare repository. ``uncommitted`` are paths that differ from HEAD or are
    untracked, as git prints them: they do not travel. ``branch`` is None when the commit was not asked for by branch.
    """

    blob: str
    commit: str
    uncommitted: tuple[str, ...]
    branch: str | None


def pack_local_repo(path: Path, ref: str | None, blobs: Blobs, *, depth: int | None = None) -> PackedRepo:
    """Pack ``ref`` (None: HEAD) of the repository at ``path`` into a blob.

    The same commit of the same repository gives the same blob again without packing it again.

    Raises:
        BadInput: no repository is there, it has no commit, or has no such ref.
        PartMissing: git is not installed.
    """
    root = path.expanduser().absolute()
    _check_repository(root)
    commit, branch = _resolve(root, ref)
    blob = _known_blob(root, commit, branch, depth, blobs) or _pack(root, commit, branch, depth, blobs)
    return PackedRepo(blob, commit, _uncommitted(root), branch)


def _check_repository(root: Path) -> None:
    if not root.is_dir():
        raise BadInput(f"The repository '{root}' is not a folder.", try_="check `repo` in the job file.")
    seen = _git(root, "rev-parse", "--show-cdup")
    if seen.returncode != 0:
        raise BadInput(
            f"The folder '{root}' is not a git repository.",
            seen=_last_line(seen.stderr),
            try_="run `git init` and commit there, or name another folder.",
        )
    up = seen.stdout.decode(errors="replace").strip()
    if up:
        top = (root / up).resolve()
        raise BadInput(
            f"The folder '{root}' is inside the repository '{top}', not the top of one.",
            try_=f"name the repository itself, with `subdir: {root.resolve().relative_to(top)}` if the work is there.",
        )


def _resolve(root: Path, ref: str | None) -> tuple[str, str | None]:
    """(commit, branch or None)"""
    found = _git(
        root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{'HEAD' if ref is None else ref}^{{commit}}"
    )
    if found.returncode != 0:
        _refuse_ref(root, ref)
    commit = found.stdout.decode().strip()
    if ref is None:
        head = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
        return commit, head.stdout.decode(errors="replace").strip() or None
    name = ref.removeprefix("refs/heads/")
    is_branch = _git(root, "show-ref", "--verify", "--quiet", "--", f"refs/heads/{name}").returncode == 0
    return commit, name if is_branch else None


def _refuse_ref(root: Path, ref: str | None) -> None:
    listing = _git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags")
    known = listing.stdout.decode(errors="replace").split()
    if ref is None and not known:
        raise BadInput(f"The repository '{root}' has no commit yet.", try_="commit something there first.")
    if ref is None:
        raise BadInput(f"HEAD of the repository '{root}' has no commit yet.", try_=f"set `ref`, as {known[0]!r}.")
    close = near(ref, known)
    raise BadInput(
        f"The repository '{root}' has no ref {ref[:200]!r}.",
        try_=f"one of: {', '.join(close)}." if close else f"`git -C '{root}' branch` shows what it has.",
    )


def _pack(root: Path, commit: str, branch: str | None, depth: int | None, blobs: Blobs) -> str:
    # Beside the blobs: /tmp is often in memory, and this may be large.
    with tempfile.TemporaryDirectory(prefix=".new-repo-", dir=blobs.folder) as folder:
        bare, tar = Path(folder, "bare"), Path(folder, "repo.tar")
        name = usable_branch(branch)
        make_bare(bare, commit=commit, branch=name)
        for argv in (
            fill_argv(bare, root, commit=commit, branch=name, depth=depth, origin=False),
            pack_refs_argv(bare),
        ):
            done = _run(argv)
            if done.returncode != 0:
                raise BadInput(f"The repository '{root}' cannot be packed.", seen=_last_line(done.stderr))
        with tar.open("wb") as out:
            write_tar(bare, out)
        blob, _ = blobs.add_file(tar)
    _remember_blob(root, commit, branch, depth, blobs, blob)
    return blob


def _index_file(root: Path, commit: str, branch: str | None, depth: int | None, blobs: Blobs) -> Path:
    """git packs the same commit in other bytes after a gc, so the blob of a commit is remembered, not made again."""
    key = "\0".join((str(root.resolve()), commit, branch or "", str(depth)))
    return blobs.folder / f".repo-{hashlib.sha256(os.fsencode(key)).hexdigest()}"


def _known_blob(root: Path, commit: str, branch: str | None, depth: int | None, blobs: Blobs) -> str | None:
    try:
        blob = _index_file(root, commit, branch, depth, blobs).read_text().strip()
        return blob if blobs.path(blob).is_file() else None
    except (OSError, ValueError, TatinError):
        return None


def _remember_blob(root: Path, commit: str, branch: str | None, depth: int | None, blobs: Blobs, blob: str) -> None:
    index = _index_file(root, commit, branch, depth, blobs)
    draft = index.with_name(f"{index.name}.{os.getpid()}")
    draft.write_text(blob)
    draft.replace(index)


def _uncommitted(root: Path) -> tuple[str, ...]:
    """Paths that differ from HEAD or are untracked; none for a bare repository."""
    status = _git(root, "status", "--porcelain", "-z", "--no-renames")
    if status.returncode != 0:
        return ()
    return tuple(entry[3:].decode(errors="backslashreplace") for entry in status.stdout.split(b"\0") if entry)


def _git(root: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    return _run(["git", *HARDENED, "-C", str(root), *args])


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    env = git_environment(os.environ, protocols="file")
    try:
        return subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise PartMissing("git is not installed.", try_="apt-get install git, or xcode-select --install.") from error
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"git took longer than {_TIMEOUT_SECONDS} s on a local repository.") from error


def _last_line(stderr: bytes) -> str | None:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else None
