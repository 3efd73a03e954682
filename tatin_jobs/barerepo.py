"""A bare repository of one commit as a tar: what goes into a guest instead of a network and credentials.

Used by the submitter for a local path and by the worker for an address, so that both make the same thing. The folder
is laid out by hand (no template, no hooks); git only fills in the objects and packs the refs.
"""

from __future__ import annotations

import difflib
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

SHA1_DIGITS = 40
FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
DEFAULT_BRANCH = "tatin"
"""The branch of the guest's clone when the ref wanted was no branch."""
ORIGIN_BRANCH = "refs/remotes/origin/"

_BRANCH = re.compile(r"(?!-)[\w][\w./+@#=-]{0,199}")
_KEPT_VARIABLES = frozenset({"GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_EXEC_PATH", "GIT_CONFIG_GLOBAL"})
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",  # set but empty: git then names what it was asked for instead of sending an empty answer
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",  # its messages are read by us
}
HARDENED = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "protocol.version=2",
    "-c", "transfer.bundleURI=false",
    "-c", "fetch.unpackLimit=1",
    "-c", "fetch.recurseSubmodules=false",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
)  # fmt: skip
"""Options for every git that is run on the host."""


def git_environment(environ: Mapping[str, str], *, protocols: str) -> dict[str, str]:
    """The environment for git on the host: the user's own, so that credential helpers and SSH keys work, without what
    points git at another repository or lets it ask a person. ``protocols``: those allowed, joined by colons."""
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_") or name in _KEPT_VARIABLES}
    return {**kept, **_QUIET, "GIT_ALLOW_PROTOCOL": protocols}


def usable_branch(name: str | None) -> str:
    """``name`` when it is a plain branch name, else the default: names come from the other side."""
    if name is None or _BRANCH.fullmatch(name) is None:
        return DEFAULT_BRANCH
    odd = any(part in name for part in ("..", "//", "@{", "/.")) or name.endswith(("/", "."))
    return DEFAULT_BRANCH if odd or any(part.endswith(".lock") for part in name.split("/")) else name


def make_bare(folder: Path, *, commit: str, branch: str) -> None:
    """Lay out an empty bare repository whose HEAD is ``branch``; ``commit`` tells its hash (SHA-1 or SHA-256)."""
    for name in ("objects", "refs/heads", "refs/tags"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
    (folder / "config").write_text(format_config(commit, bare=True))


def format_config(commit: str, *, bare: bool) -> str:
    """The ``config`` of a repository of the hash that ``commit`` has (SHA-1 or SHA-256); ends in section ``core``."""
    version, extension = ("0", "") if len(commit) == SHA1_DIGITS else ("1", "[extensions]\n\tobjectFormat = sha256\n")
    return (
        f"{extension}[core]\n\trepositoryFormatVersion = {version}\n\tbare = {str(bare).lower()}\n\tfileMode = true\n"
    )


def fill_argv(bare: Path, source: Path, *, commit: str, branch: str, depth: int | None, origin: bool) -> list[str]:
    """argv that fetches ``commit`` from the repository at ``source`` (a path of this host) into ``bare``.

    ``origin``: the branch is also named as the remote's, as after a clone. Tags in the history come along when the
    history is whole.
    """
    refs = [f"{commit}:refs/heads/{branch}"]
    if origin:
        refs.append(f"{commit}:{ORIGIN_BRANCH}{branch}")
    shallow = [] if depth is None else [f"--depth={depth}", "--no-tags"]
    # --update-shallow: a source that is shallow itself (a checkout in CI) is as good as it is.
    options = ["--quiet", "--no-write-fetch-head", "--no-recurse-submodules", "--update-shallow", *shallow]
    return ["git", *HARDENED, f"--git-dir={bare}", "fetch", *options, "--", str(source), *refs]


def pack_refs_argv(bare: Path) -> list[str]:
    """argv that puts all refs of ``bare`` into one file."""
    return ["git", *HARDENED, f"--git-dir={bare}", "pack-refs", "--all"]


def write_tar(bare: Path, out: BinaryIO) -> None:
    """Write ``bare`` as a tar: sorted, without times, owners or links, so that equal files give equal bytes."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(bare.rglob("*")):
            info = tarfile.TarInfo(str(path.relative_to(bare)))
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif path.is_file():
                info.size, info.mode = path.stat().st_size, 0o644
                with path.open("rb") as file:
                    tar.addfile(info, file)


def near(name: str, known: Sequence[str]) -> list[str]:
    """Up to five of ``known`` that ``name`` may have been meant for."""
    ends = [ref for ref in known if ref.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return list(dict.fromkeys([*ends, *close]))[:5]
