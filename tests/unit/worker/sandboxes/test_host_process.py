"""A machine's process on the host, here a shell: what is kept of what it prints."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.wait import until
from worker.sandboxes import host_process
from worker.sandboxes.host_process import LOG_BYTES, HostProcess


class Shell(HostProcess):
    program = "The shell"
    log_name = "shell.log"


async def test_a_log_is_held_to_its_size_and_the_last_words_are_still_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A68: a guest that makes its machine's process print does not fill the host's disk."""
    monkeypatch.setattr(host_process, "LOG_SECONDS", 0.01)
    script = (
        f"head -c {3 * LOG_BYTES} /dev/zero; echo > printed; until [ -e go ]; do sleep 0.02; done; echo bye; exit 3"
    )
    shell = await Shell.spawn("one", tmp_path, ["sh", "-c", script], {"PATH": os.environ["PATH"]})
    holding = asyncio.create_task(shell.hold_log())
    await asyncio.to_thread(until, (tmp_path / "printed").exists, 30)
    await asyncio.to_thread(until, lambda: (tmp_path / "shell.log").stat().st_size == LOG_BYTES, 30)
    holding.cancel()
    (tmp_path / "go").touch()
    assert (await shell.wait_end()).endswith("bye")
    assert (tmp_path / "shell.log").stat().st_size == LOG_BYTES + len(b"bye\n")
