"""What keeps a Tart guest from the network, on this Mac: softnet where it may run, and pf where somebody set it up.

Without softnet a guest reaches all that its host reaches. softnet blocks everything but the gateway's address, which is
the host with all its ports; those only pf closes. (Facts: softnet 0.19. Not tried on a Mac.)
"""

from __future__ import annotations

import os
import shutil
import subprocess

from worker.sandboxes.base import Capabilities
from worker.sandboxes.tart.cli import search_path

PF_ANCHOR = "tatin"
SOFTNET_FLAGS = ("--net-softnet-block", "0.0.0.0/0", "--net-softnet-allow", "@host")
HOST_PORTS = "every port of this host"
_TRY_SECONDS = 10


def has_softnet() -> bool:
    """Whether softnet is here and may become root: by its SUID bit (a brew upgrade loses it) or by sudo."""
    program = shutil.which("softnet", path=search_path())
    if program is None:
        return False
    found = os.stat(program)
    return bool(found.st_uid == 0 and found.st_mode & 0o4000) or _answers("sudo", "-n", program, "--help")


def has_pf_anchor() -> bool:
    """Whether pf has rules under our anchor (docs/machines.md has them)."""
    return _answers("sudo", "-n", "pfctl", "-a", PF_ANCHOR, "-s", "rules", needs="block")


def run_flags(softnet: bool) -> tuple[str, ...]:
    """What ``tart run`` is told of the network."""
    return SOFTNET_FLAGS if softnet else ()


def capabilities(*, softnet: bool, pf: bool) -> Capabilities:
    """What a guest on this Mac is promised."""
    gap = "" if softnet and pf else HOST_PORTS if softnet else ""
    return Capabilities(
        separate_kernel=True, egress_control=softnet, survives_worker=True, snapshot=False, sudo=True, egress_gap=gap
    )


def _answers(*argv: str, needs: str = "") -> bool:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_SECONDS,
            check=False,
            env={"PATH": search_path()},
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and needs.encode() in done.stdout
