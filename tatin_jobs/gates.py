"""Gates: what holds many queued jobs at once, without moving one of them.

A job passes the gate of its account and the gate of its model route, which are part of the name of its line. While a
gate is closed no job of its lines is claimed; when it opens, each has its old place. An account's gate closes when its
limit is reached, until the stated reset; a route's when its provider failed several times in a row, until a probe goes
well; the queue's when a person holds the queue. Pure: no I/O here.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from tatin_jobs.models import Frozen, JobSpec
from tatin_jobs.settings import Settings
from tatin_jobs.states import HeldFor

ROUTE_FAILURES = 3
"""So many ``provider`` failures in a row on one model route hold it."""
PROBE_SECONDS = 5 * 60.0
"""One job probes a held route this often."""

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]")


class GateKind(StrEnum):
    """What a gate is about."""

    ACCOUNT = "account"
    ROUTE = "route"
    QUEUE = "queue"


HELD_FOR = {GateKind.ACCOUNT: HeldFor.QUOTA, GateKind.ROUTE: HeldFor.ROUTE, GateKind.QUEUE: HeldFor.PERSON}


class Gate(Frozen):
    """A closed gate. ``until``: when it opens, or when the next probe goes through; None: when a person opens it."""

    id: str
    kind: GateKind
    name: str
    until: datetime | None = None
    message: str = ""
    """One sentence for people."""


QUEUE_GATE = "queue"
"""The id of the whole queue's gate."""


def account_gate(spec: JobSpec) -> str | None:
    """The id of the account's gate; None for a job without account."""
    return _id("a", spec.account) if spec.account else None


def route_gate(spec: JobSpec) -> str | None:
    """The id of the model route's gate; None for a job without model."""
    name = route_name(spec)
    return _id("r", name) if name else None


def route_name(spec: JobSpec) -> str | None:
    """``ollama/qwen3-coder``: provider, or address, and model."""
    if spec.model is None:
        return None
    return f"{spec.model.provider or spec.model.base_url or 'default'}/{spec.model.name}"


def gates_of(spec: JobSpec) -> str:
    """The end of the name of the job's line: ``|a<10 hex>|r<10 hex>``, empty for a job that passes no gate."""
    return "".join(f"|{gate}" for gate in (account_gate(spec), route_gate(spec)) if gate)


def gates_in(line: str) -> tuple[str, ...]:
    """The ids of the gates that jobs of this line pass."""
    return (QUEUE_GATE, *line.split("|")[1:])


def default_account(spec: JobSpec, settings: Settings) -> str | None:
    """Provider and name of its key, as far as the submitter's settings tell: ``anthropic.ANTHROPIC_API_KEY``."""
    if spec.model is None:
        return None
    name = spec.model.provider or (next(iter(settings.models)) if len(settings.models) == 1 else "default")
    provider = settings.models.get(name)
    key = (provider.key_env or (Path(provider.key_file).name if provider.key_file else None)) if provider else None
    return _NO_NAME.sub("-", f"{name}.{key}" if key else name)


def _id(letter: str, name: str) -> str:
    return letter + hashlib.sha256(name.encode()).hexdigest()[:10]
