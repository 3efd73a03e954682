"""Wait for a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Call ``condition`` every 20 ms until it returns something true, and return that.

    Raises:
        AssertionError: it never did within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout:g} s")
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Whether that process is gone, or ended and not yet waited for. It may go while this looks."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
