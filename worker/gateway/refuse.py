"""What a guest gets that may have no further connection."""

from __future__ import annotations

import asyncio


class Refuse(asyncio.Protocol):
    """Closes a connection as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
