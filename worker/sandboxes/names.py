"""Sandbox name <-> job and attempt: how a host knows its own (I6).

A name is ``tatin-<home>-<short id>-<attempt>``: <home> is the eight hex digits of this TATIN_HOME. An attempt's second
sandbox, in which its work is verified, has a ``v`` behind that. Only names with our prefix and home are ever destroyed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tatin_jobs.names import short_part

MAX_LENGTH = 60
_NAME = re.compile(r"tatin-([0-9a-f]{8})-([a-z0-9]{1,20})-([1-9][0-9]{0,4})(v?)")


@dataclass(frozen=True)
class Owner:
    """What a sandbox's name tells."""

    home: str
    short_id: str
    attempt: int


def sandbox_name(home: str, job: str, attempt: int) -> str:
    """The name for one attempt of ``job`` on the host whose home id is ``home``."""
    name = f"tatin-{home}-{short_part(job)}-{attempt}"
    if _NAME.fullmatch(name) is None or len(name) > MAX_LENGTH:
        raise ValueError(f"no sandbox name can be made of home {home!r}, job {job!r}, attempt {attempt}")
    return name


def verify_name(name: str) -> str:
    """The name of the second sandbox of the attempt whose first is called ``name``."""
    return f"{name}v"


def parse_sandbox_name(name: str) -> Owner | None:
    """Whose it is; None when the name is not one of Tatin's."""
    match = _NAME.fullmatch(name)
    return Owner(match[1], match[2], int(match[3])) if match and len(name) <= MAX_LENGTH else None


def is_ours(name: str, home: str) -> bool:
    """Whether this home made it."""
    owner = parse_sandbox_name(name)
    return owner is not None and owner.home == home
