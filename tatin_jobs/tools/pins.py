"""Which agent CLIs there are, at which version, and what their packages must look like: ``tools.toml``, read once."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tatin_jobs.errors import BadInput, PartMissing

_ARCH = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Package:
    """One npm package with a tool's program for one platform. ``integrity`` is npm's form: ``<algorithm>-<base64>``."""

    name: str
    version: str
    integrity: str
    megabytes: int


@dataclass(frozen=True)
class Tool:
    """One agent CLI. ``program`` is the path of its executable in the package and in the installed folder."""

    name: str
    version: str
    program: str
    packages: Mapping[str, Package]

    def package_for(self, platform_name: str) -> Package:
        """Raises PartMissing: the tool is not published, or not pinned, for this platform."""
        package = self.packages.get(platform_name)
        if package is None:
            raise PartMissing(
                f"There is no package of '{self.name}' {self.version} for this host.",
                seen=f"the host is {platform_name}; there are: {', '.join(sorted(self.packages))}",
                try_="run its jobs on a worker of one of these kinds.",
            )
        return package


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
    return MappingProxyType({name: _tool(name, entry) for name, entry in tomllib.loads(path.read_text()).items()})


def _tool(name: str, entry: dict[str, object]) -> Tool:
    match entry:
        case {"version": str(version), "program": str(program), "packages": dict(packages)}:
            made = {key: Package(version=version, **values) for key, values in packages.items()}
            return Tool(name, version, program, MappingProxyType(made))
    raise ValueError(f"tools.toml: [{name}] needs version, program and packages")


TOOLS = _read(Path(__file__).with_name("tools.toml"))
