"""A program that ends with whoever started it."""

from __future__ import annotations

import shutil

TIED = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
"""Before its argv. On Linux it is killed when the thread that started it ends, also when that was killed itself; empty
where there is no such program, as on a Mac. What it has started in turn is not."""
