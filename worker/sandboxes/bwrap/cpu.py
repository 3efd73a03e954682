"""CPU time of a guest: what its processes have used, and those of them that are gone."""

from __future__ import annotations

import os
from collections.abc import Iterator

from worker.sandboxes.bwrap.process_files import children, used_ticks

_TICKS = os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float | None:
    """Of process ``pid`` and all below it, with the children that they have waited for; None when it is gone."""
    ticks = [used_ticks(each) for each in _tree(pid)]
    known = [value for value in ticks if value is not None]
    return sum(known) / _TICKS if known else None


def _tree(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += children(each)
