"""Debian as this host gets it: what mmdebstrap is told for the first step of a QEMU image."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from worker.capacity import host_arch
from worker.images.parts import debian_release

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def bootstrap_command(root: Path) -> Sequence[str]:
    """The command that puts the images' Debian into the empty folder ``root``."""
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", f"--architectures={host_arch()}", "--format=directory"]
    argv += [f"--keyring={KEYRING}"] if KEYRING.exists() else []
    argv += [f"--aptopt={line}" for line in _apt_options()]
    return [*argv, "--include=ca-certificates,python3", debian_release(), str(root), *_apt_sources()]


def _apt_sources() -> list[str]:
    """Where this host's own apt gets Debian from, for the images' release; none on a host that is no Debian, and then
    mmdebstrap knows where Debian is."""
    with suppress(OSError, subprocess.CalledProcessError):
        listed = _output(["apt-get", "indextargets", "--format", "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)"])
        release = debian_release()
        found: dict[str, str] = {}
        for line in listed.splitlines():
            origin, label, uri = line.split("\t")
            if origin == "Debian" and label in ("Debian", "Debian-Security"):
                found.setdefault(label, uri)
        if "Debian" in found:
            lines = [f"deb {found['Debian']} {release} main", f"deb {found['Debian']} {release}-updates main"]
            if "Debian-Security" in found:
                lines.append(f"deb {found['Debian-Security']} {release}-security main")
            return lines
    return []


def _apt_options() -> list[str]:
    """What this host's apt was told about fetching (proxies, dates), for the build alone."""
    with suppress(OSError, subprocess.CalledProcessError):
        lines = _output(["apt-config", "dump"]).splitlines()
        names = ("acquire::http", "acquire::https", "acquire::check-", "acquire::retries")
        return [line.rstrip(";") for line in lines if line.lower().startswith(names) and not line.endswith('"";')]
    return []


def _output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, check=True, text=True, timeout=300).stdout
