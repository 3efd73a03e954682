"""What every attempt of one worker shares."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.models import Offer
from tatin_jobs.settings import Settings
from tatin_jobs.store import Booked, Store
from worker.collect import Unpackers
from worker.journal import Journal
from worker.redaction import Redactor
from worker.repository import Repositories
from worker.sandboxes.base import SandboxProvider


class Lingering:
    """What sandboxes take that are not verified gone: booked, with a lease or without, once (I4). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needs: dict[str, Booked] = {}

    def add(self, sandbox: str, need: Booked) -> None:
        with self._lock:
            self._needs[sandbox] = need

    def remove(self, sandbox: str) -> None:
        with self._lock:
            self._needs.pop(sandbox, None)

    def needs(self) -> list[Booked]:
        with self._lock:
            return list(self._needs.values())

    def names(self) -> list[str]:
        with self._lock:
            return list(self._needs)


@dataclass(frozen=True)
class Context:
    """One worker's parts. Everything but ``lingering`` is used from the event loop only; ``store`` from any thread."""

    settings: Settings
    home: Home
    home_id: str
    offer: Offer
    store: Store
    blobs: Blobs
    provider: SandboxProvider
    repositories: Repositories
    unpackers: Unpackers
    journal: Journal
    lingering: Lingering = field(default_factory=Lingering)
    redactor: Redactor = field(default_factory=Redactor)
