"""git on the host, and the end of its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tatin_jobs.tied import TIED
from tests.support.wait import has_ended, until

FETCH = """
import asyncio, sys
from worker.repository.git import Git
argv = ["sh", "-c", "echo $$ > \\"$0\\"; exec sleep 300", sys.argv[1]]
asyncio.run(Git(protocols=["file"]).run_argv(argv, timeout_seconds=300, max_file_bytes=2**20))
"""


@pytest.mark.skipif(not TIED, reason="setpriv is Linux's")
def test_a_fetch_ends_with_its_worker(tmp_path: Path) -> None:
    """F01: else it would write where the next worker's fetch does, with nobody to end it."""
    note = tmp_path / "pid"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    worker = subprocess.Popen([sys.executable, "-c", FETCH, str(note)], env=env)
    until(lambda: note.exists() and note.read_text().endswith("\n"))
    fetching = int(note.read_text())
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    try:
        until(lambda: has_ended(fetching))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(fetching, signal.SIGKILL)
