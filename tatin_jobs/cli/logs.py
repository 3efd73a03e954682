"""``tatin logs``: what an agent did and printed, stored or live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.attempts import meant_attempt
from tatin_jobs.cli.jobs_view import one_line
from tatin_jobs.cli.log_view import LOOK_SECONDS, LogPrinter, follow_log
from tatin_jobs.cli.options import OneJob
from tatin_jobs.cli.output import console, on_terminal, say, warn, write_bytes, write_text
from tatin_jobs.cli.readable import AGENT_EVENTS, stored_events
from tatin_jobs.cli.session import Session, open_session
from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.models import Job
from tatin_jobs.results import EVENTS_FILE, LOG_FILE
from tatin_jobs.states import JobState
from tatin_jobs.terminal import LogCleaner

_BLOCK = 256 * 1024


def command(
    job_id: OneJob,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the job is finished; may be started before it runs.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The bytes as they came; only to a pipe or a file.")] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, metavar="N", help="This attempt, not the newest.")
    ] = None,
) -> None:
    """Print what an agent did: its messages, tool calls and errors, or what it printed if it tells no events.

    The stored log of a finished job, else the live one.
    """
    if raw and on_terminal():
        raise BadInput("--raw sends the guest's bytes as they are, and stdout is a terminal.", try_="leave out --raw.")
    with open_session() as session:
        job = session.store.job(session.store.resolve(job_id))
        if stored := _stored_log(session, job, attempt):
            if raw or not _print_events(stored.with_name(EVENTS_FILE)):
                _print_file(stored, raw)
            return
        if raw and (running := _log_on_this_host(session, job)):
            _print_growing(session, job, running, follow=follow)
            return
        found = _print_live(session, job, follow=follow, raw=raw, attempt=attempt)
        job = session.store.job(job.id)
        if follow:
            say(one_line(job))
        elif not found:
            say(f"{one_line(job)}\nThere is no log{' yet' if job.state is not JobState.FINISHED else ''}.")


def _stored_log(session: Session, job: Job, attempt: int | None) -> Path | None:
    """``agent.log`` of a finished job or of an attempt that was named; None when the live log is the one to show."""
    if job.state is not JobState.FINISHED and (attempt is None or attempt == job.attempt):
        return None
    try:
        path = meant_attempt(session.home, job, attempt).folder / LOG_FILE
    except (BadInput, PartMissing):
        if attempt is not None and attempt > job.attempt:
            raise
        return None  # the live log may still have it, for a day
    return path if path.is_file() else None


def _log_on_this_host(session: Session, job: Job) -> Path | None:
    """``agent.log`` of a running attempt: the bytes of an agent that tells events do not travel live."""
    path = session.home.attempt(job.id, job.attempt) / LOG_FILE
    return path if job.state is JobState.RUNNING and path.is_file() else None


def _print_growing(session: Session, job: Job, path: Path, *, follow: bool) -> None:
    with path.open("rb") as file:
        while True:
            over = not follow or session.store.job(job.id).state is not JobState.RUNNING  # asked before reading
            while block := file.read(_BLOCK):
                write_bytes(block)
            if over:
                return
            time.sleep(LOOK_SECONDS)


def _print_events(path: Path) -> bool:
    """Whether the agent told any events; if so they are printed."""
    printer, told = LogPrinter(console()), False
    for event in stored_events(path):
        told = told or event.get("kind") in AGENT_EVENTS
        printer.event(event)
    return told


def _print_file(path: Path, raw: bool) -> None:
    cleaner = LogCleaner()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if raw:
                write_bytes(block)
            else:
                write_text(cleaner.feed(block))
    if not raw:
        write_text(cleaner.close())


def _print_live(session: Session, job: Job, *, follow: bool, raw: bool, attempt: int | None) -> bool:
    """Whether there was anything to print."""
    printer = LogPrinter(console())
    found = untold = False
    for chunks in follow_log(session.store, job.id, follow=follow):
        for chunk in chunks:
            if attempt is not None and chunk.attempt != attempt:
                continue
            found = True
            if not raw:
                printer.show(chunk)
            elif chunk.stream in ("stdout", "stderr"):
                write_bytes(chunk.data)
            elif chunk.stream == "event":
                untold = True
    printer.close()
    if untold:
        warn(f"The agent's own bytes lie on the host of worker '{job.worker}' until the job has ended.")
    return found
