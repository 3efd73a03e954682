"""A job's record as the hash in the store, and back. What comes out of the store is checked again (A40, A43)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from tatin_jobs.errors import TatinError
from tatin_jobs.gates import HELD_FOR, Gate, GateKind, gates_in, gates_of
from tatin_jobs.models import Job
from tatin_jobs.states import JobState

_TIMES = ("held_until", "created_at", "started_at", "finished_at")
_JSON = ("spec", "need", "summary")
_COPIED = ("outcome", "reason", "step", "worker", "token", "retry_of", "message", "held_for")


def from_ms(text: str) -> datetime | None:
    """The instant of a millisecond count; None for an empty or endless one."""
    return datetime.fromtimestamp(float(text) / 1000, UTC) if text and "inf" not in text else None


def to_ms(instant: datetime) -> int:
    """Milliseconds since 1970."""
    return round(instant.timestamp() * 1000)


def new_fields(job: Job) -> dict[str, str]:
    """The hash of a job that is being submitted; the script adds state, class and place."""
    return {
        "version": str(job.version),
        "batch": job.batch,
        "spec": job.spec.model_dump_json(exclude_defaults=True),
        "need": job.need.model_dump_json(),
        "message": job.message,
        "retry_of": job.retry_of or "",
        "needs": " ".join(job.needs),
        "deadline": str(to_ms(job.spec.deadline)) if job.spec.deadline else "",
        "gates": gates_of(job.spec),
        "created_at": str(to_ms(job.created_at)),
    }


def job_of(job_id: str, fields: Mapping[str, str]) -> Job:
    """The record in this hash.

    Raises:
        TatinError: it is not a record that this Tatin can read.
    """
    values: dict[str, Any] = {"id": job_id}
    try:
        for name in _JSON:
            values[name] = json.loads(fields[name]) if fields.get(name) else None
        for name in _TIMES:
            values[name] = from_ms(fields.get(name, ""))
        for name in _COPIED:
            values[name] = fields.get(name) or None
        values["message"] = values["message"] or ""
        values["version"] = int(fields["version"])
        values["batch"] = fields["batch"]
        values["state"] = fields["state"]
        for name in ("attempt", "retries_used", "deaths"):
            values[name] = int(fields.get(name) or 0)
        values["needs"] = tuple(fields.get("needs", "").split())
        values["cancel_wanted"] = fields.get("cancel") == "1"
        return Job.model_validate(values)
    except (KeyError, ValueError, OverflowError, OSError, ValidationError) as error:
        raise TatinError(
            f"The record of job '{job_id}' cannot be read by this Tatin.",
            seen=f"{type(error).__name__}, record version {fields.get('version', 'missing')}",
            try_="update Tatin on this host, or `tatin doctor`.",
        ) from error


def closed_gate(gate_id: str, fields: Mapping[str, str], now_ms: int) -> Gate | None:
    """The gate in this hash; None when it is open. A held route stays closed for all but its probes."""
    until = fields.get("until", "")
    try:
        kind = GateKind(fields["kind"])
        if not until or (kind is GateKind.ACCOUNT and float(until) <= now_ms):
            return None
        message = fields.get("message", "")
        return Gate(id=gate_id, kind=kind, name=fields.get("name", ""), until=from_ms(until), message=message)
    except (KeyError, ValueError, OverflowError, OSError, ValidationError):
        return None


def behind_gates(fields: Mapping[str, str], gates: Mapping[str, Gate]) -> Mapping[str, str]:
    """The record as it is shown while these gates are closed: what waits behind one is held."""
    gate = next((gates[name] for name in gates_in(fields.get("class", "")) if name in gates), None)
    if gate is None or fields.get("state") != JobState.QUEUED:
        return fields
    until = str(to_ms(gate.until)) if gate.until else ""
    held_for = str(HELD_FOR[gate.kind])
    return {**fields, "state": "held", "held_for": held_for, "held_until": until, "message": gate.message}
