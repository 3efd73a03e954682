"""The command line of bwrap for one sandbox: what the guest has, and that the rest of the host is not there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from worker.sandboxes.base import GUEST_HOME, GUEST_RUN, ToolMount

GUEST_UID = 1000
SHM_BYTES = 256 * 2**20
GUEST_SHELL = "/etc/tatin/bash"
"""The copy of the shell that runs as the guest's first process."""
FIRST = 'exec 2>/dev/null; [ -z "$1" ] || eval "exec $1<&-"; echo; while read -r _; do kill -KILL -1; echo; done'
"""What it runs: it closes the descriptor ``$1`` that bwrap left open, and says that all is mounted; kills everything
but itself when asked (the kernel spares pid 1 alone) and says so; ends with its stdin, and the kernel ends the guest.
It opens nothing later on: a guest that has its user may take that from it. bash reaps the orphans meanwhile, which
dash does not."""

_ETC_FOLDERS = ("ssl", "alternatives")
HOST_ETC = ("ld.so.cache", "localtime", "mime.types", "services", "protocols", "debian_version", "os-release")
"""What programs need of the host's /etc; all of it is world-readable. Names, keys and addresses of the host are not.
Files are copied once for all guests: each thing that is bound costs every sandbox 0.15 ms."""
PASSWD = f"root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{GUEST_UID}:{GUEST_UID}:agent:{GUEST_HOME}:/bin/bash\n"
GROUP = f"root:x:0:\nagent:x:{GUEST_UID}:\n"
HOSTS = "127.0.0.1 localhost tatin\n::1 localhost\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files\n"
OWN_ETC: Mapping[str, str] = {
    "passwd": PASSWD,
    "group": GROUP,
    "hosts": HOSTS,
    "nsswitch.conf": NSSWITCH,
    "resolv.conf": "",
}


@dataclass(frozen=True)
class Shared:
    """What all guests of a home see alike, read-only: the files of /etc, the shell of the first process."""

    root: Path

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def shell(self) -> Path:
        """Nobody may read it, so the kernel lets nobody trace what runs it: not even a guest that has the user of its
        first process, as a plain user's guests have."""
        return self.etc / "tatin" / "bash"


@dataclass(frozen=True)
class Layout:
    """The folders of one sandbox on the host: the guest's home, /run/tatin and /tmp."""

    root: Path

    @cached_property
    def home(self) -> Path:
        return self.root / "home"

    @cached_property
    def run(self) -> Path:
        return self.root / "run"

    @cached_property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @cached_property
    def process(self) -> Path:
        return self.root / "process"


def arguments(shared: Shared, layout: Layout, tools: Sequence[ToolMount], *, userns: bool) -> list[str]:
    """bwrap's arguments. ``userns``: its user namespace is prepared (root's way; the warden names it), and the guest's
    first process is root of that, with the right to kill and no other; else bwrap makes one."""
    if userns:
        user = ["--cap-drop", "ALL", "--cap-add", "CAP_KILL"]
    else:
        ids = ["--uid", str(GUEST_UID), "--gid", str(GUEST_UID)]
        user = ["--unshare-user", "--disable-userns", *ids, "--cap-drop", "ALL"]
    return [
        *user,
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "tatin", "--clearenv"),
        *_system(),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"),
        *("--bind", str(layout.tmp), "/tmp"),
        *_folders("/home", "/run", "/var"),
        *_etc(shared),
        *("--symlink", "/tmp", "/var/tmp"),
        *("--bind", str(layout.home), GUEST_HOME),
        *("--bind", str(layout.run), GUEST_RUN),
        *_folders("/opt", "/opt/tatin", "/opt/tatin/tools"),
        *_tools(tools),
        # What bwrap itself made is in memory without a bound, and would be the guest's to fill where it owns it.
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", GUEST_HOME),
        *("--", GUEST_SHELL, "-c", FIRST, "first"),
    ]


def _folders(*paths: str) -> list[str]:
    return [part for path in paths for part in ("--perms", "0755", "--dir", path)]


@cache
def _system() -> list[str]:
    """/usr read-only, and its short names as the host has them; they do not change under a running worker."""
    parts = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            parts += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            parts += ["--ro-bind", str(path), str(path)]
    return parts


@cache
def etc_folders() -> list[str]:
    """Names of the folders of the host's /etc that guests see."""
    return [name for name in _ETC_FOLDERS if (Path("/etc") / name).is_dir()]


def _etc(shared: Shared) -> list[str]:
    parts = ["--ro-bind", str(shared.etc), "/etc"]
    for name in etc_folders():
        parts += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    return parts


def _tools(tools: Sequence[ToolMount]) -> list[str]:
    parts = []
    for tool in tools:
        parts += ["--ro-bind", str(tool.source), tool.target]
    return parts
