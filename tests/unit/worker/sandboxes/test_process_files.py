"""What the kernel says of processes, where that is long."""

from __future__ import annotations

import os
import signal

import pytest

from worker.sandboxes.bwrap.process_files import children, used_ticks

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="Linux says it")
CROWD = 1000
"""Their numbers take more than a page."""


def test_all_children_of_a_crowd_are_told() -> None:
    """A60: what is not told is not counted."""
    made = []
    read, write = os.pipe()
    try:
        for _ in range(CROWD):
            pid = os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, read, 0)])
            made.append(pid)
        assert set(made) <= set(children(os.getpid()))
    finally:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(read)
        os.close(write)


def test_a_process_that_is_gone_has_none() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert children(pid) == []
    assert used_ticks(pid) is None
