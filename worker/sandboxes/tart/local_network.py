"""macOS 15 keeps a program that launchd started from the local network, so from Tart's guests, until a user allows it.

It is about what connects, not about Tart; a program of Terminal or of sshd is let through. It sees "No route to host".
(Apple's technical note TN3179, and reports on Tart. Not tried on a Mac.)
"""

from __future__ import annotations

import time

from tatin_jobs.errors import SandboxError

NO_ROUTE = "No route to host"
DENIED_SECONDS = 30.0
"""A guest that answered by vsock and has an address is on its network by then; what it is not is reachable for us."""
FIX = (
    "allow it in System Settings > Privacy & Security > Local Network, for Python or the app that started it (macOS"
    ' asks at the first try, on the screen); or set tart_ssh = "exec" in tatin.toml, which needs no network; or for'
    " all programs of the Mac: sudo defaults write com.apple.network.local-network"
    " AllowedEthernetLocalNetworkAddresses -array 192.168.64.0/24, the same with AllowedWiFiLocalNetworkAddresses,"
    " and restart the Mac"
)


class Denial:
    """Whether this process is kept from one guest: "No route" for too long, and nothing else."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: float | None = None

    def check(self, said: str) -> None:
        """After each try to connect, with what was seen. Raises SandboxError: it is; a new clone is no help."""
        if NO_ROUTE not in said:
            self._since = None
            return
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= DENIED_SECONDS:
            raise SandboxError(
                f"macOS keeps this process from the local network: there is no route to '{self._name}', which runs.",
                seen=f"{NO_ROUTE}, for {DENIED_SECONDS:g} s",
                try_=FIX,
            )
