"""Runs the ``notify`` command of this worker's settings when a batch is over, or when all that is left of it is held.

One worker runs it for each batch, once: the store says who. The facts go in as JSON on its stdin; it is the host's own
command and never a job's (A38).
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
from datetime import UTC, datetime, timedelta

from tatin_jobs.errors import StoreUnavailable, TatinError
from tatin_jobs.models import Job
from tatin_jobs.notify import notification
from tatin_jobs.settings import Settings
from tatin_jobs.states import HeldFor, JobState
from tatin_jobs.store import Store
from tatin_jobs.store.streams import GATES_CHANGED

BLOCK_SECONDS = 2.0
COMMAND_SECONDS = 60
RECENT = timedelta(days=1)
MAX_RECENT_JOBS = 5000

log = logging.getLogger(__name__)


class Notifier:
    """A thread that follows the store's changes; does nothing when no command is set. What a worker of the home
    ``home_id`` took upon itself and died over is told by the next one, twice rather than never."""

    def __init__(self, store: Store, settings: Settings, home_id: str) -> None:
        self._store = store
        self._command = settings.notify
        self._id = home_id
        self._told: set[tuple[str, str]] = set()
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
        cursor: str | None = None
        to_look: set[str] = set()
        while True:
            last = self._stopping.is_set()
            try:
                if cursor is None:
                    first, _ = self._store.changes("$", 0)
                    to_look |= self._recent()
                    cursor = first
                else:
                    after, moved = self._store.changes(cursor, 0 if last else BLOCK_SECONDS)
                    to_look |= self._batches_of(moved)
                    cursor = after
                while to_look:
                    batch = min(to_look)
                    self._look(batch)
                    to_look.remove(batch)
            except TatinError as error:
                log.warning("action=notify waits: %s", error.what)
                self._stopping.wait(BLOCK_SECONDS)
            except Exception:
                log.exception("action=notify failed")
                self._stopping.wait(BLOCK_SECONDS)
            if last:
                return

    def _recent(self) -> set[str]:
        """Batches that a worker may have left untold when it died: submitted or moved within a day."""
        since = datetime.now(UTC) - RECENT
        jobs = self._store.list_jobs(since=since, limit=MAX_RECENT_JOBS)
        return {job.batch for job in jobs}

    def _batches_of(self, job_ids: list[str]) -> set[str]:
        found = self._recent() if GATES_CHANGED in job_ids else set()
        for job_id in job_ids:
            if job_id == GATES_CHANGED:
                continue
            try:
                found.add(self._store.job(job_id).batch)
            except StoreUnavailable:
                raise
            except TatinError:
                continue  # pruned meanwhile, or a record that cannot be read
        return found

    def _look(self, batch: str) -> None:
        try:
            jobs = self._store.jobs(self._store.batch(batch).jobs)
        except StoreUnavailable:
            raise
        except TatinError as error:  # pruned meanwhile, or a record that cannot be read: not a matter of waiting
            log.warning("action=notify batch=%s left out: %s", batch, error.what)
            return
        kind = _what_happened(jobs)
        if kind and (batch, kind) not in self._told and self._store.first_to_notify(batch, kind, self._id):
            self._told.add((batch, kind))
            self._tell(batch, kind, jobs)
            self._store.has_notified(batch, kind)

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
    states = {job.state for job in jobs if job.held_for is not HeldFor.NEEDS}
    if not states or states & {JobState.QUEUED, JobState.RUNNING}:
        return None
    if JobState.HELD not in states and any(job.state is JobState.HELD for job in jobs):
        return None  # the jobs that these need are over, or belong to another batch
    return "held" if JobState.HELD in states else "finished"
