"""``python -m tatin_jobs.cli``: the same as ``tatin``."""

import sys

from tatin_jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
