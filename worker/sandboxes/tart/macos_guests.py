"""macOS guests: Apple lets two run on a host at once, and the kernel refuses a third. Linux guests do not count."""

from __future__ import annotations

import json
from collections.abc import Collection

from tatin_jobs.errors import HostBusy
from worker.sandboxes.tart.cli import LIST_SECONDS, Row, call

MOST = 2
AGAIN_SECONDS = 5 * 60.0
REFUSED = "exceeds the system limit"
"""What ``tart run`` says when somebody else was faster."""


async def is_macos(name: str) -> bool:
    """Whether this machine of Tart's, or image, is a macOS; one that is gone is none."""
    done = await call("get", name, "--format", "json", seconds=LIST_SECONDS)
    try:
        return done.status == 0 and json.loads(done.stdout)["OS"] == "darwin"
    except (ValueError, KeyError, TypeError):
        return False


async def check_room(name: str, rows: Collection[Row], ours: Collection[str]) -> None:
    """Whether one more macOS guest may be started: ``ours`` are those that this worker has begun, running or not yet.

    Raises:
        HostBusy: it may not, for now.
    """
    running = [row.name for row in rows if row.is_local and row.is_running]
    there = {*ours, *[other for other in running if await is_macos(other)]} - {name}
    if len(there) >= MOST:
        raise busy(name, ", ".join(sorted(there)))


def busy(name: str, seen: str) -> HostBusy:
    """The error, for the machine that must wait."""
    return HostBusy(
        f"Sandbox '{name}' waits: its image is macOS, and {MOST} macOS guests run on this Mac, which is all that Apple"
        " allows.",
        seen=seen,
        wait_seconds=AGAIN_SECONDS,
    )
