"""The patterns of every name that may reach a key, a path, a sandbox name or an argument list (A33), and new ids.

A job id is ``<name>-<short id>``, a batch id ``b-<short id>``: both match ``ID``. Checked once, where text comes in.
"""

from __future__ import annotations

import re
import secrets

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
"""A job's name: 1 to 40 of ``a-z 0-9 -``, no dash at either end."""
LABEL_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
TAG = LABEL_KEY
ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,54}[a-z0-9])?")
ID_PREFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,55}")
IMAGE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
WORKER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SHORT_ID_LENGTH = 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no i, l, o, 0, 1: ids are read aloud and typed


def short_id() -> str:
    """Ten letters drawn at random (49 bits): enough for a queue that lives for years."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(SHORT_ID_LENGTH))


def job_id(name: str) -> str:
    """A new id for a job called ``name``."""
    return f"{name}-{short_id()}"


def batch_id() -> str:
    """A new id for one submit."""
    return f"b-{short_id()}"


def short_part(job: str) -> str:
    """The random end of a job id: what goes into sandbox names."""
    return job.rsplit("-", 1)[-1]
