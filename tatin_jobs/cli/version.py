"""``tatin version``."""

from __future__ import annotations

import tatin_jobs


def command() -> None:
    """Print the version."""
    print(f"tatin {tatin_jobs.__version__}")
