"""Wait for what tells nobody when it comes true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tatin_jobs.errors import SandboxError

PAUSE_SECONDS = 0.03


async def until(
    condition: Callable[[], Awaitable[bool]], seconds: float, what: str, pause: float = PAUSE_SECONDS
) -> None:
    """Ask ``condition`` again and again until it is true.

    Raises:
        SandboxError: it is not within ``seconds``; the message begins with ``what``.
    """
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(pause)
    except TimeoutError as error:
        raise SandboxError(f"{what} within {seconds:g} s.") from error
