"""Runs the ``notify`` command of this worker's settings when a batch is over, or when all that is left of it is held.

One worker runs it for each batch, once: the store says who. The facts go in as JSON on its stdin; it is the host's own
command and never a job's (A38).
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading

from tatin_jobs.notify import notification

from tatin_jobs.errors import TatinError
from tatin_jobs.models import Job
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store

BLOCK_SECONDS = 2.0
COMMAND_SECONDS = 60

log = logging.getLogger(__name__)


class Notifier:
    """A thread that follows the store's changes; does nothing when no command is set."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._command = settings.notify
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tatin-notify", daemon=True)

    def start(self) -> None:
        if self._command:
            self._thread.start()

    def stop(self) -> None:
        """Look once more, then end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=COMMAND_SECONDS)

    def _run(self) -> None:
        cursor = "$"
        try:
            open_batches = {batch.id for batch in self._store.batches(50)}
        except TatinError:
            open_batches = set()
        while True:
            last = self._stopping.is_set()
            try:
                for batch in sorted(open_batches):
                    self._look(batch)
                if last:
                    return
                cursor, moved = self._store.changes(cursor, BLOCK_SECONDS)
                open_batches = {job.batch for job in self._store.jobs(moved)}
            except TatinError as error:
                log.warning("action=notify waits: %s", error.what)
                self._stopping.wait(BLOCK_SECONDS)

    def _look(self, batch: str) -> None:
        jobs = self._store.jobs(self._store.batch(batch).jobs)
        kind = _what_happened(jobs)
        if kind and self._store.first_to_notify(batch, kind):
            self._tell(batch, kind, jobs)

    def _tell(self, batch: str, kind: str, jobs: list[Job]) -> None:
        facts = {"event": kind, **notification(self._store.batch(batch), jobs)}
        log.info("action=notify batch=%s event=%s", batch, kind)
        try:
            done = subprocess.run(
                list(self._command),
                input=json.dumps(facts).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("action=notify failed: %s", error)
        else:
            if done.returncode:
                log.warning(
                    "action=notify exited with %d: %s", done.returncode, done.stderr[-500:].decode(errors="replace")
                )


def _what_happened(jobs: list[Job]) -> str | None:
    """``finished``, ``held``, or None while anything may still move by itself."""
    states = {job.state for job in jobs}
    if not states or states & {JobState.QUEUED, JobState.RUNNING}:
        return None
    return "held" if JobState.HELD in states else "finished"
