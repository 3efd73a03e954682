"""The worker that ``tatin run`` starts beside itself for one batch.

Its stdin is a pipe from us: when that closes, because we ask it to hurry or because we are gone, it hands back what it
runs, destroys its sandboxes and ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tatin_jobs
from tatin_jobs.home import Home

LAST_WORDS_BYTES = 2000
END_SECONDS = 150.0
"""A hurried worker needs up to two minutes to collect and destroy."""


class BesideWorker:
    """A worker process. ``started`` as soon as this is made; ``close`` waits for its end."""

    def __init__(self, home: Home, batch: str) -> None:
        # A session of its own: Ctrl-C at the terminal is for us, and we tell it what to do. Another working folder: a
        # project may well have a Python package called `worker`, which must not be taken for ours.
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker", "--batch", batch],
            cwd=Path(tatin_jobs.__file__).parent.parent,
            env={**os.environ, "TATIN_HOME": str(home.root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )

    @property
    def exit_status(self) -> int | None:
        """None while it runs; minus the signal's number when one killed it."""
        return self._process.poll()

    def hurry(self) -> None:
        """Have it hand back what it runs, and end. Safe to call twice."""
        if self._process.stdin:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass

    def last_words(self) -> str:
        """The end of what it wrote to stderr; of a traceback the last line, unless somebody hunts a fault."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - LAST_WORDS_BYTES))
        words = self._stderr.read().decode("utf-8", "replace").strip()
        if "Traceback (most recent call last)" in words and not os.environ.get("TATIN_DEBUG"):
            return f"a fault in Tatin itself: {words.splitlines()[-1]}"
        return words

    def close(self) -> None:
        """Wait until it has ended; it ends of itself when its batch is over."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.hurry()
            self._process.wait(END_SECONDS)
        finally:
            self.hurry()
            self._stderr.close()
