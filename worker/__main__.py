"""``python -m worker --batch ID``: the worker that ``tatin run`` starts beside itself, for one batch.

Its stdin is a pipe from its parent: when that closes, the parent is gone, and the worker hands back and ends.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from tatin_jobs.errors import TatinError
from tatin_jobs.log import set_up_logging
from tatin_jobs.settings import load_settings
from worker.main import run_worker


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--batch", required=True, help="work until this batch is over")
    batch = parser.parse_args().batch
    settings = load_settings(os.environ)
    set_up_logging(settings.home / "worker.log", terminal=False)
    try:
        return run_worker(settings, batch, sys.stdin.buffer)
    except TatinError as error:
        logging.getLogger(__name__).error("action=start failed: %s", error)  # noqa: TRY400
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
