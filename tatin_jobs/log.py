"""Logging set-up: one line a fact, ``action=...`` with job and attempt, UTC, into a file that is bounded."""

from __future__ import annotations

import logging
import logging.handlers
import time
from pathlib import Path

MAX_BYTES = 10 * 2**20
_FORMAT = "%(asctime)sZ %(levelname)s %(name)s %(message)s"


def set_up_logging(path: Path, *, terminal: bool) -> None:
    """Log to ``path`` (two files of 10 MiB at most), warnings to stderr as well when ``terminal``."""
    formatter = logging.Formatter(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    file = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=1, delay=True)
    file.setFormatter(formatter)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(file)
    for library in ("huey", "asyncssh"):  # they tell of each message and each channel
        logging.getLogger(library).setLevel(logging.WARNING)
    if terminal:
        stream = logging.StreamHandler()
        stream.setLevel(logging.WARNING)
        stream.setFormatter(logging.Formatter("tatin worker: %(message)s"))
        root.addHandler(stream)
