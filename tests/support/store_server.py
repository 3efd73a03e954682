"""The server of the embedded store, seen from outside."""

from __future__ import annotations

from pathlib import Path

import psutil

from tatin_jobs.home import Home


def servers(home: Home) -> list[psutil.Process]:
    """The server processes of this home, by what they are: a Valkey that works in its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if "valkey" in process.name() and Path(process.cwd()) == home.store.resolve():
                found.append(process)
        except psutil.Error:
            continue
    return found
