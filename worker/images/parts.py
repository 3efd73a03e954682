"""The parts of an image: which there are, what each is asked, and their programs fetched and checked into the folder
that a build takes.

Read from packer/parts.toml; the coding agents' pins are those of ``tatin_jobs.tools``. Whatever builds an image, on
Linux or on a Mac, gets its programs here, for the platform of the guest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tatin_jobs.data import packer_folder
from tatin_jobs.errors import BadInput, PartMissing, TatinError
from tatin_jobs.tools.install import make_tool
from tatin_jobs.tools.pins import TOOLS, Tool, tool_from
from worker.images.wish import BuildWish

ARCHIVE_MAX_BYTES = 500 * 2**20
FETCH_SECONDS = 60
SYSTEM = "system"
"""In tools.txt: what every image has."""
_NOT_TOOLS = ("debian", "profiles", "archives")
Take = Callable[[str], None]
"""Puts the program of one part where the build wants it; raises PartMissing when it cannot be had."""


@dataclass(frozen=True)
class AskedTool:
    """One line of tools.txt."""

    part: str
    command: str

    @property
    def name(self) -> str:
        return self.command.split()[0]


@dataclass(frozen=True)
class Gathered:
    """The parts that a build has, and what is to be said of parts: why one is not in, or what of it was not checked."""

    parts: tuple[str, ...]
    remarks: dict[str, str]


def _parts() -> dict[str, Any]:
    return tomllib.loads((packer_folder() / "parts.toml").read_text())


def debian_release() -> str:
    """The release that images are made of."""
    return str(_parts()["debian"])


def asked_tools(parts: Iterable[str]) -> Sequence[AskedTool]:
    """The tools that an image with these parts has, in the order in which they are asked."""
    lines = (packer_folder() / "stages/tools.txt").read_text().splitlines()
    tools = [AskedTool(*line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]
    return [tool for tool in tools if tool.part in (SYSTEM, *parts)]


def wanted_parts(wish: BuildWish) -> tuple[str, ...]:
    """The parts of the wished profile but those that the builder leaves out.

    Raises:
        BadInput: no such profile, or a part that it does not have.
    """
    profiles = _parts()["profiles"]
    if wish.profile not in profiles:
        raise BadInput(f"There is no profile '{wish.profile}'.", try_=f"one of: {', '.join(profiles)}.")
    parts = profiles[wish.profile]
    for name in (*wish.without, *wish.if_reachable):
        if name not in parts:
            raise BadInput(f"The profile '{wish.profile}' has no part '{name}'.", try_=f"of: {', '.join(parts)}.")
    if "qmd" in parts and "node" in wish.without and "qmd" not in wish.without:
        raise BadInput("The part 'qmd' needs 'node'.", try_="leave both out: --without node,qmd")
    for name in wish.if_reachable:
        if name not in _parts()["archives"]:
            raise BadInput(
                f"The part '{name}' is not one that may be missing.", try_=f"of: {', '.join(_parts()['archives'])}."
            )
    return tuple(part for part in parts if part not in wish.without)


def gather(wish: BuildWish, platform: str, take: Take, report: Callable[[str], None]) -> Gathered:
    """Have every part taken; one that may be missing and cannot be downloaded is left out, and that is said.

    Raises:
        PartMissing: another could not be had. TatinError: one is not what was pinned.
    """
    remarks = {name: "left out by --without" for name in wish.without}
    found = []
    for name in wanted_parts(wish):
        try:
            take(name)
        except PartMissing as error:
            if name not in wish.if_reachable:
                raise
            remarks[name] = f"not verified here, since it could not be downloaded: {error.seen}"
            report(f"✗ {name} is left out: {error.what} {error.seen}")
            continue
        found.append(name)
        if not _is_pinned(name, platform):
            remarks[name] = "taken as it came: no hash of it is pinned"
    return Gathered(tuple(found), remarks)


def pin_of(name: str, platform: str) -> str:
    """What the program of this part is fetched by, as text: another pin is another text."""
    listed = _parts()
    if name in listed["archives"]:
        return json.dumps(
            [name, listed["archives"][name]["version"], listed["archives"][name][platform]], sort_keys=True
        )
    return f"{name} {_tool(name, listed)!r}"


def is_fetched(name: str) -> bool:
    """Whether the part has a program to fetch; else Debian has it."""
    return name in _parts()["archives"] or _tool(name, _parts()) is not None


def fetch_part(name: str, platform: str, target: Path, report: Callable[[str], None]) -> None:
    """Put the program of this part into the new folder ``target``.

    Raises:
        PartMissing: it could not be had. TatinError: it is not what was pinned.
    """
    listed = _parts()
    if name in listed["archives"]:
        entry = listed["archives"][name]
        _fetch_archive(name, entry["version"], entry[platform], target, report)
        return
    tool = _tool(name, listed)
    assert tool is not None  # asked by is_fetched
    make_tool(tool, _platform(tool, platform), target, report)


def _tool(name: str, listed: dict[str, Any]) -> Tool | None:
    if name in TOOLS or name not in listed or name in _NOT_TOOLS:
        return TOOLS.get(name)
    return tool_from(name, listed[name])


def _is_pinned(name: str, platform: str) -> bool:
    archives = _parts()["archives"]
    if name in archives:
        return "sha256" in archives[name][platform]
    tool = _tool(name, _parts())
    if tool is None:
        return True  # Debian's own signatures
    return all(package.integrity for package in tool.packages_for(_platform(tool, platform)))


def _platform(tool: Tool, platform: str) -> str:
    """The build for every CPU where there are two: an image does not know on which it will run."""
    baseline = f"{platform}-baseline"
    return baseline if baseline in tool.packages else platform


def _fetch_archive(name: str, version: str, pin: dict[str, str], target: Path, report: Callable[[str], None]) -> None:
    report(f"downloading {name} {version}")
    target.mkdir(parents=True)
    archive = target / "archive.tar.gz"
    try:
        with urllib.request.urlopen(pin["url"], timeout=FETCH_SECONDS) as answer, archive.open("wb") as file:
            _copy(answer, file)
    except (OSError, urllib.error.URLError) as error:
        shutil.rmtree(target)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise PartMissing(
            f"The part '{name}' {version} could not be downloaded.",
            seen=f"{pin['url']}: {error}",
            try_=f"look at the network; or build without it: --without {name}, or --if-reachable {name}",
        ) from error
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if "sha256" in pin and found != pin["sha256"]:
        raise TatinError(f"What came for the part '{name}' is not what is pinned.", seen=f"sha256 {found}")
    if "sha256" not in pin:
        report(f"{name} {version}: no hash is pinned; what came has sha256 {found}")
    _take_program(archive, name, target / "bin" / name)
    archive.unlink()


def _take_program(archive: Path, name: str, target: Path) -> None:
    target.parent.mkdir()
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isreg() and member.name.rpartition("/")[2] == name:
                source = tar.extractfile(member)
                assert source is not None  # a regular file
                with target.open("xb") as file:
                    shutil.copyfileobj(source, file, 2**20)
                target.chmod(0o755)
                return
    raise TatinError(f"The archive of the part '{name}' has no program '{name}'.")


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Raises OSError: it is longer than any of our archives."""
    left = ARCHIVE_MAX_BYTES
    while data := source.read(2**20):
        left -= len(data)
        if left < 0:
            raise OSError(f"it is longer than {ARCHIVE_MAX_BYTES} bytes")
        target.write(data)
