"""A real worker whose sandboxes outlive it: ``python -m tests.faults.harness.surviving_worker [BATCH]``.

Its provider is the fake: plain processes that nobody ends with their worker, as a virtual machine is not ended.
"""

from __future__ import annotations

import os
import sys

from tatin_jobs.home import Home
from tatin_jobs.log import set_up_logging
from tatin_jobs.settings import load_settings
from worker import sandboxes
from worker.main import run_worker
from worker.sandboxes.base import SandboxProvider
from worker.sandboxes.fake import FakeProvider


def _provider(home: Home, home_id: str) -> SandboxProvider:
    return FakeProvider(home.sandboxes, home_id, survives_worker=True)


if __name__ == "__main__":
    sandboxes.KINDS = {"fake": _provider}
    settings = load_settings(os.environ, {"sandbox": "fake"})
    set_up_logging(settings.home / "worker.log", terminal=False)
    sys.exit(run_worker(settings, sys.argv[1] if sys.argv[1:] else None))
