"""Ask the store something that an attempt cannot go on without; a store that is away is waited for (F20-F22)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tatin_jobs.errors import StoreUnavailable

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


async def ask(patience_seconds: float, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The answer of a call that blocks and may be made again.

    Raises:
        StoreUnavailable: there was none within ``patience_seconds``.
    """
    began = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await asyncio.to_thread(question, *args, **kwargs)
        except StoreUnavailable as error:
            if time.monotonic() - began > patience_seconds:
                raise
            log.warning("action=wait: %s", error.what)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
