"""Ports of loopback for tests."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """One that nobody listens on, outside of those that the kernel gives away: of these it would give one to whoever
    connects meanwhile, even to who connects to that very port, who then has itself at the other end."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
