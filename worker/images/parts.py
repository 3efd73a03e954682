"""The parts of an image: which there are, and their programs fetched and checked into the folder that a build takes.

Read from packer/parts.toml; the coding agents' pins are those of ``tatin_jobs.tools``. Whatever builds an image, on
Linux or on a Mac, gets its programs here, for the platform of the guest.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from tatin_jobs.data import packer_folder
from tatin_jobs.errors import BadInput, PartMissing, TatinError
from tatin_jobs.tools.install import make_tool
from tatin_jobs.tools.pins import TOOLS, Tool, tool_from

ARCHIVE_MAX_BYTES = 500 * 2**20
FETCH_SECONDS = 60
_NOT_TOOLS = ("debian", "profiles", "archives")


def _parts() -> dict[str, Any]:
    return tomllib.loads((packer_folder() / "parts.toml").read_text())


def debian_release() -> str:
    """The release that images are made of."""
    return str(_parts()["debian"])


def wanted_parts(profile: str, without: Sequence[str]) -> tuple[str, ...]:
    """The parts of ``profile`` but those that the builder leaves out.

    Raises:
        BadInput: no such profile, or a part that it does not have.
    """
    profiles = _parts()["profiles"]
    if profile not in profiles:
        raise BadInput(f"There is no profile '{profile}'.", try_=f"one of: {', '.join(profiles)}.")
    parts = profiles[profile]
    for name in without:
        if name not in parts:
            raise BadInput(f"The profile '{profile}' has no part '{name}'.", try_=f"of: {', '.join(parts)}.")
    if "qmd" in parts and "node" in without and "qmd" not in without:
        raise BadInput("The part 'qmd' needs 'node'.", try_="leave both out: --without node,qmd")
    return tuple(part for part in parts if part not in without)


def fetch_parts(names: Sequence[str], platform: str, folder: Path, report: Callable[[str], None]) -> None:
    """Put the programs of these parts into ``folder/<part>``; what Debian has itself is no business of this.

    Raises:
        PartMissing: one could not be had; nothing is left out that the builder did not leave out.
        TatinError: one is not what was pinned.
    """
    listed = _parts()
    for name in names:
        target = folder / name
        if name in listed["archives"]:
            entry = listed["archives"][name]
            _fetch_archive(name, entry["version"], entry[platform], target, report)
        elif name in TOOLS or (name in listed and name not in _NOT_TOOLS):
            tool = TOOLS.get(name) or tool_from(name, listed[name])
            make_tool(tool, _platform(tool, platform), target, report)


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
        raise PartMissing(
            f"The part '{name}' {version} could not be downloaded.",
            seen=f"{pin['url']}: {error}",
            try_=f"look at the network, or build without it: --without {name}",
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
