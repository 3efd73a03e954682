"""``tatin worker`` whose own clock alone is wrong: libfaketime is in this process, and in none that it starts."""

from __future__ import annotations

import os
import sys

from tatin_jobs.cli import main

if __name__ == "__main__":
    del os.environ["LD_PRELOAD"]
    sys.exit(main(["worker"]))
