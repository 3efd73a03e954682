"""The user's own configuration of an agent tool, and ours merged into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tatin_jobs.errors import AttemptError
from tatin_jobs.states import Reason

MAX_BYTES = 2**20


def user_config(path: Path | None) -> Mapping[str, Any]:
    """The file that ``[agents.<tool>] config`` of the worker's settings names, as a JSON object; empty without one.

    Raises:
        AttemptError: reason worker; it cannot be read, or is no JSON object.
    """
    if path is None:
        return {}
    place = path.expanduser()
    value, seen = None, "it is no JSON object"
    try:
        with place.open("rb") as file:
            value = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        seen = str(error)
    if not isinstance(value, dict):
        raise AttemptError(
            f"The agent configuration '{place}' cannot be used.",
            seen=seen,
            try_="mend the file, or leave `config` out of the worker's tatin.toml.",
            reason=Reason.WORKER,
        )
    return value


def merged(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """``theirs`` with ``ours`` laid over it: objects key by key, everything else replaced. What a job needs to run
    unattended is ours; the rest stays as the user wrote it."""
    out = dict(theirs)
    for name, value in ours.items():
        before = out.get(name)
        out[name] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return out


def as_file(theirs: Mapping[str, Any], rendered: bytes) -> bytes:
    """The bytes of a configuration file: the user's own with a rendered template laid over it."""
    return json.dumps(merged(theirs, json.loads(rendered)), indent=2).encode() + b"\n"
