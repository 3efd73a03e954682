"""Which agent CLIs there are, at which version, and what their packages must look like: ``tools.toml``, read once."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tatin_jobs.errors import BadInput, PartMissing

_ARCH = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Package:
    """One npm package. ``integrity`` is npm's form, ``<algorithm>-<base64>``; None for a version that the user chose,
    of which only npm's own check against its source of packages is known. ``take`` maps a path of the package (a folder
    ends in ``/``) to its place in the installed folder."""

    name: str
    version: str
    integrity: str | None
    megabytes: int
    take: Mapping[str, str]


@dataclass(frozen=True)
class Tool:
    """One agent CLI. ``program`` is the path of its executable in the installed folder; ``script`` is what stands
    there when it is none of a package's files. ``packages``: those that each platform needs. ``by_hand``: where a
    person gets it who wants it; such a tool is in no package that can be installed from here."""

    name: str
    version: str
    program: str
    packages: Mapping[str, tuple[Package, ...]]
    script: str | None = None
    by_hand: str | None = None

    def packages_for(self, platform_name: str) -> tuple[Package, ...]:
        """Raises PartMissing: the tool is not published, or not pinned, for this platform."""
        found = self.packages.get(platform_name)
        if found is None and self.by_hand:
            raise PartMissing(f"'{self.name}' cannot be installed from here.", try_=f"get it from {self.by_hand}")
        if found is None:
            raise PartMissing(
                f"There is no package of '{self.name}' {self.version} for this host.",
                seen=f"the host is {platform_name}; there are: {', '.join(sorted(self.packages))}",
                try_="run its jobs on a worker of one of these kinds.",
            )
        return found

    def at(self, version: str | None) -> Tool:
        """The tool at a version of the user's choice; None and its own: as pinned."""
        if version is None or version == self.version:
            return self

        def chosen(package: Package) -> Package:
            # Only the tool's own package moves with it; what it runs on stays as it is.
            same = package.version == self.version
            return replace(package, version=version, integrity=None) if same else package

        packages = {key: tuple(chosen(package) for package in found) for key, found in self.packages.items()}
        return replace(self, version=version, packages=packages)


def tool_named(name: str) -> Tool:
    """Raises BadInput: there is no such tool to install."""
    if name not in TOOLS:
        raise BadInput(f"There is no tool '{name}' to install.", try_=f"one of: {', '.join(sorted(TOOLS))}.")
    return TOOLS[name]


def this_platform() -> str:
    """``linux-x64``, ``linux-x64-baseline`` (a CPU without AVX2), ``linux-arm64``, ``darwin-arm64``, or another name
    that no package has (``linux-musl-x64``)."""
    system = platform.system().lower()
    if system == "linux" and platform.libc_ver()[0] != "glibc":
        system = "linux-musl"
    machine = platform.machine().lower()
    name = f"{system}-{_ARCH.get(machine, machine)}"
    return f"{name}-baseline" if name == "linux-x64" and not _has_avx2() else name


def _has_avx2() -> bool:
    try:
        return "avx2" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def _read(path: Path) -> Mapping[str, Tool]:
    return MappingProxyType({name: tool_from(name, entry) for name, entry in tomllib.loads(path.read_text()).items()})


def tool_from(name: str, entry: dict[str, Any]) -> Tool:
    version, program = entry["version"], entry["program"]
    packages: dict[str, tuple[Package, ...]] = {}
    for platform_name, listed in entry.get("packages", {}).items():
        packages[platform_name] = tuple(
            Package(
                item["name"],
                item.get("version", version),
                item.get("integrity"),
                item["megabytes"],
                MappingProxyType(item.get("take", {program: program})),
            )
            for item in listed
        )
    return Tool(name, version, program, MappingProxyType(packages), entry.get("script"), entry.get("by_hand"))


TOOLS = _read(Path(__file__).with_name("tools.toml"))
