"""Where a guest's user may become root: how root finds the gateway. `sudo` begins with a clean environment, and apt,
which runs as root, reads files."""

from __future__ import annotations

from collections.abc import Mapping

from tatin_jobs.errors import SandboxError
from worker.guest_trust import BUNDLE_PATH
from worker.sandboxes.base import Sandbox

APT_FILE = "/etc/apt/apt.conf.d/90tatin"
SUDOERS_FILE = "/etc/sudoers.d/90-tatin-network"
_SCRIPT = f"""
set -e
if [ -d /etc/apt/apt.conf.d ]; then printf '%s' "$1" > {APT_FILE}; fi
umask 227
printf '%s' "$2" > {SUDOERS_FILE}
"""


async def tell_root(sandbox: Sandbox, env: Mapping[str, str], proxy: str, *, trust: bool) -> None:
    """Write apt's configuration, and have `sudo` keep the variables in ``env``.

    Raises:
        SandboxError: they cannot be written.
    """
    argv = ["sudo", "-n", "sh", "-c", _SCRIPT, "sh", apt_configuration(proxy, trust=trust), sudoers(env)]
    done = await sandbox.run(argv)
    if done.exit_status:
        seen = done.stderr.decode(errors="replace").strip()[-300:]
        raise SandboxError(f"Root of sandbox '{sandbox.name}' cannot be told of the network.", seen=seen)


def apt_configuration(proxy: str, *, trust: bool) -> str:
    """A file of apt's: where it goes, and whom it trusts."""
    lines = [f'Acquire::{scheme}::Proxy "{proxy}";' for scheme in ("http", "https")]
    if trust:
        lines.append(f'Acquire::https::CAInfo "{BUNDLE_PATH}";')
    return "\n".join(lines) + "\n"


def sudoers(env: Mapping[str, str]) -> str:
    """A file of sudo's: variables that it does not take away."""
    return f'Defaults env_keep += "{" ".join(sorted(env))}"\n'
