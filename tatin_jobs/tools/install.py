"""Installs an agent CLI: downloaded aside, compared with its pin, unpacked, tried, and only then put in its place."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tatin_jobs.errors import PartMissing, TatinError
from tatin_jobs.file_locks import only_one
from tatin_jobs.home import Home
from tatin_jobs.results import remove_folder, sync_folder
from tatin_jobs.tools.installed import InstalledTool, find_tool
from tatin_jobs.tools.npm import download
from tatin_jobs.tools.pins import Package, Tool, this_platform, tool_named

DRAFT = ".draft-"
TRY_SECONDS = 60


def install_tool(home: Home, name: str, report: Callable[[str], None], version: str | None = None) -> InstalledTool:
    """Install ``name`` at ``version`` (None: its pinned one) unless it is there; other versions go when no sandbox may
    use them.

    Safe to call twice and by two processes at once: the second waits and finds it done. What is cut off, also in
    the removal of another version, leaves nothing that counts as installed. ``report`` gets one line for each step.

    Raises:
        PartMissing: there is no package for this host, no npm, or the package could not be had.
        TatinError: what came is not what is pinned, or it does not run here.
        BadInput: there is no such tool, or the home cannot be used.
    """
    tool = tool_named(name).at(version)
    with suppress(PartMissing):
        return find_tool(home, name, version)
    packages = tool.packages_for(this_platform())
    home.prepare()
    with only_one(home.tools / ".lock", "installation", report):
        with suppress(PartMissing):
            return find_tool(home, name, version)
        _install(home, tool, packages, report)
    return find_tool(home, name, version)


def _install(home: Home, tool: Tool, packages: Sequence[Package], report: Callable[[str], None]) -> None:
    folder = home.tools / tool.name
    folder.mkdir(mode=0o755, exist_ok=True)
    for stale in folder.glob(f"{DRAFT}*"):  # made, or half removed, by a killed installer: a live one holds the lock
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=folder, ignore_cleanup_errors=True) as draft:
        made = Path(draft, "made")
        _make(tool, packages, made, Path(draft), report)
        _try(made / tool.program, tool, _folder(draft, "home"))
        made.chmod(0o755)
        _replace(made, folder / tool.version)
    sync_folder(folder)
    _remove_others(home, folder, tool.version, report)


def make_tool(tool: Tool, platform_name: str, folder: Path, report: Callable[[str], None]) -> None:
    """Put ``tool`` for another machine into the new ``folder``: fetched and checked, but not tried.

    Raises:
        PartMissing: there is no package for that platform, or it could not be had.
        TatinError: what came is not what is pinned.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=folder.parent) as draft:
        _make(tool, tool.packages_for(platform_name), folder, Path(draft), report)


def _make(tool: Tool, packages: Sequence[Package], made: Path, draft: Path, report: Callable[[str], None]) -> None:
    made.mkdir()
    for number, package in enumerate(packages):
        report(f"downloading {package.name} {package.version} ({package.megabytes} MB)")
        archive = download(package, _folder(str(draft), f"archive-{number}"), report)
        check_integrity(archive, package)
        report("unpacking")
        unpack(archive, package.take, made)
    if tool.script is not None:
        _put(io.BytesIO(tool.script.lstrip().encode()), made, tool.program)


def check_integrity(archive: Path, package: Package) -> None:
    """Raises TatinError: the archive is not the one that was pinned."""
    if package.integrity is None:
        return
    algorithm, _, wanted = package.integrity.partition("-")
    with archive.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, algorithm).digest()).decode()
    if found != wanted:
        raise TatinError(
            f"The package '{package.name}' {package.version} that came is not the one that is pinned.",
            seen=f"{algorithm}-{found} instead of {package.integrity}",
            try_="install it again; if it stays so, do not use that source of packages.",
        )


def unpack(archive: Path, take: Mapping[str, str], folder: Path) -> None:
    """Put the files that ``take`` names from an npm archive into ``folder``; links in the archive decide nothing.

    Raises:
        TatinError: the archive lacks one of them, has something else in its place, or is broken.
    """
    missing = set(take)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = member.name.removeprefix("package/")
                wanted = next(
                    (name for name in take if path == name or (name[-1] == "/" and path.startswith(name))), None
                )
                if wanted is None:
                    continue
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or ".." in path.split("/"):
                    raise TatinError(f"'{archive.name}' has something else than a file at '{path}'.")
                with source:
                    _put(source, folder, take[wanted] + path.removeprefix(wanted))
                missing.discard(wanted)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TatinError(f"'{archive.name}' cannot be unpacked.", seen=str(error)) from error
    if missing:
        raise TatinError(f"'{archive.name}' cannot be unpacked.", seen=f"it has no {', '.join(sorted(missing))}")


def _put(source: IO[bytes], folder: Path, place: str) -> None:
    """Write one file, durable; every user may read and run it, for the guest's is another one."""
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)
    for parent in list(target.parents)[: len(Path(place).parts) - 1]:
        parent.chmod(0o755)
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, 2**20)
        file.flush()
        os.fsync(file.fileno())
    target.chmod(0o755)


def _try(program: Path, tool: Tool, home: Path) -> None:
    """Raises TatinError: the program does not run here, or says another version than the wanted one."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            [str(program), "--version"],
            env=env,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TRY_SECONDS,
            check=False,
        )
        seen = (done.stdout + done.stderr).decode(errors="replace").strip()[-300:]
        runs = done.returncode == 0 and tool.version in seen
        seen = seen if done.returncode == 0 else f"it exited with {done.returncode}: {seen}"
    except (OSError, subprocess.TimeoutExpired) as error:
        runs, seen = False, str(error)
    if not runs:
        raise TatinError(f"'{tool.name}' {tool.version} does not run on this host.", seen=f"--version: {seen}")


def _replace(made: Path, target: Path) -> None:
    if target.exists():  # without its program, or it would have been found
        shutil.rmtree(target)
    made.rename(target)


def _remove_others(home: Home, folder: Path, version: str, report: Callable[[str], None]) -> None:
    """One version is kept, 180 MB each; but a guest that runs now has its own mounted."""
    others = [path for path in folder.iterdir() if path.name != version]
    if others and any(home.sandboxes.iterdir()):
        report(f"sandboxes are running, so an earlier version stays: {', '.join(path.name for path in others)}")
        return
    for path in others:
        remove_folder(path, DRAFT)


def _folder(parent: str, name: str) -> Path:
    path = Path(parent, name)
    path.mkdir()
    return path
