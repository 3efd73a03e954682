"""What a worker does to itself before it holds a secret: no core dump, no look into it, nothing for its children."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator

from tatin_jobs.secret_sources import take_from_environment
from tatin_jobs.settings import Settings
from worker.gateway import PRESETS

_PR_SET_DUMPABLE = 4


def harden(settings: Settings) -> None:
    """Once, at the start of the process, and for it alone: what it starts is an ordinary program again, but for the
    core limit and for the variables, which stay away."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Nobody of this user may trace it or read its memory and its first environment, which still holds the keys.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    take_from_environment(_secret_variables(settings))


def _secret_variables(settings: Settings) -> Iterator[str]:
    for provider in (*PRESETS.values(), *settings.models.values()):
        if provider.key_env:
            yield provider.key_env
    for secret in settings.secrets.values():
        if secret.env:
            yield secret.env
