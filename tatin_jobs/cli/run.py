"""``tatin run``: submit, work here, follow, fetch; one command, nothing else running."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.beside import BesideWorker
from tatin_jobs.cli.ending_view import show_ending
from tatin_jobs.cli.live_view import LiveView
from tatin_jobs.cli.options import JobFilesArgument, Overrides
from tatin_jobs.cli.outage import PAUSE_SECONDS, Outage
from tatin_jobs.cli.outcomes import all_over, exit_code
from tatin_jobs.cli.output import console, say, warn
from tatin_jobs.cli.prerequisites import check_host, check_jobs, check_workers, worker_runs
from tatin_jobs.cli.session import Session, now, open_session
from tatin_jobs.cli.submit import tell_warnings
from tatin_jobs.errors import EXIT_CANCELLED, EXIT_FAILED, StoreUnavailable, TatinError, WrongState
from tatin_jobs.models import Job
from tatin_jobs.states import JobState
from tatin_jobs.submitting import JobFiles, Submitted, live_workers, submit_files

LOOK_SECONDS = 0.25
"""How soon a Ctrl-C or the end of the worker is noticed."""


def command(
    files: JobFilesArgument,
    overrides: Overrides = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where results go. Default: work/<id>.")
    ] = None,
) -> int:
    """Submit jobs, run them here, fetch the results.

    Shows each step and what the agents print. The first Ctrl-C cancels the jobs and waits for what they have; the
    second hurries. Where a worker runs already, this one only submits and follows.
    """
    with open_session() as session:
        store, settings, home = session.store, session.settings, session.home
        runs = worker_runs(home)
        workers = live_workers(store) if runs else []
        if runs:
            check = partial(check_workers, workers=workers, settings=settings)
        else:
            check = partial(check_jobs, settings=settings, offer=check_host(settings, home))
        submitted = submit_files(store, settings, home, JobFiles(files, overrides), now(), check=check)
        tell_warnings(submitted, workers)
        if runs:
            say(f"batch {submitted.batch.id}: the worker of this home runs it")
        return Run(session, submitted, None if runs else BesideWorker(home, submitted.batch.id)).follow(output)


class Run:
    """One batch, from submitted to fetched; with the worker beside it, or None when another one has it."""

    def __init__(self, session: Session, submitted: Submitted, worker: BesideWorker | None) -> None:
        self._session = session
        self._store = session.store
        self._ids = [job.id for job in submitted.jobs]
        self._worker = worker
        self._view = LiveView(session.store, submitted.jobs, console())
        self._asked = 0
        """How often Ctrl-C was pressed."""
        self._heeded = 0

    def follow(self, output: Path | None) -> int:
        """Show how it goes until all is over; fetch, sum up; the exit code."""
        with self._interrupts():
            try:
                died = self._until_over()
                self._view.close()
                jobs = self._store.jobs(self._ids)
                show_ending(self._session.home, jobs, output)
            finally:
                self._view.close()
                if self._worker:  # it still has sandboxes to destroy
                    self._worker.close()
        if died is not None:
            return died
        return exit_code(jobs) if all_over(jobs) else EXIT_CANCELLED

    def _until_over(self) -> int | None:
        """None when the jobs are over or left to themselves; the exit code when the worker died."""
        cursor, _ = self._store.changes("$", 0)  # before the first look, so that no move falls between
        for job in self._store.jobs(self._ids):
            self._view.update(job)
        outage = Outage()
        while True:
            # The worker first: if it ended because the batch is over, the jobs below say so.
            status = self._worker.exit_status if self._worker else None
            try:
                cursor, moved = self._store.changes(cursor, LOOK_SECONDS)
                for job in self._store.jobs(job_id for job_id in moved if job_id in self._ids):
                    self._view.update(job)
                jobs = self._store.jobs(self._ids)
            except StoreUnavailable as error:
                if status is not None:
                    raise
                outage.began(error)
                if self._heed_interrupts():
                    return None
                time.sleep(PAUSE_SECONDS)
                continue
            outage.ended()
            if self._heed_interrupts():
                return None
            if all_over(jobs):
                for job in jobs:
                    self._view.update(job)
                return None
            if status is not None:
                return self._worker_died(jobs, status)

    def _worker_died(self, jobs: list[Job], status: int) -> int:
        """Say so. Jobs that it never took are cancelled: nobody would expect them to run some other day."""
        assert self._worker is not None  # it has an exit status
        how = f"was killed by signal {-status}" if status < 0 else f"exited with {status}"
        never_ran = all(job.attempt == 0 for job in jobs)
        warn(f"the worker {how}{' before it took a job' if never_ran else ''}")
        if words := self._worker.last_words():
            say(words)
        if never_ran or self._asked:
            self._cancel()
        else:
            left = sum(job.state is not JobState.FINISHED for job in jobs)
            say(f"{left} of {len(jobs)} jobs are not over and stay in the queue; `tatin worker` goes on with them")
        return status if status > 0 else EXIT_FAILED

    def _heed_interrupts(self) -> bool:
        """Do what Ctrl-C asks for; True when the jobs are to be left to another worker."""
        if self._asked == self._heeded:
            return False
        self._heeded = self._asked
        if self._asked == 1:
            say("cancelling; what the jobs have is collected. Ctrl-C again hurries.")
            self._cancel()
        elif self._worker:
            say("hurrying")
            self._worker.hurry()
        else:
            say("no longer following; the worker of this home stops them")
            return True
        return False

    def _cancel(self) -> None:
        for job_id in self._ids:
            try:
                self._store.cancel(job_id)
            except WrongState:
                pass  # it is over
            except TatinError as error:
                warn(f"{job_id} could not be cancelled: {error.what}")

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        def count(_number: int, _frame: object) -> None:
            self._asked += 1
            if self._asked > 2:  # whoever is this impatient goes; the worker ends by its closed pipe
                os._exit(EXIT_CANCELLED)

        before = signal.signal(signal.SIGINT, count)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
