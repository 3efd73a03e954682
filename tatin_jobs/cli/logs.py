"""``tatin logs``: what an agent printed, stored or live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.attempts import meant_attempt
from tatin_jobs.cli.jobs_view import one_line
from tatin_jobs.cli.log_view import LogPrinter, follow_log
from tatin_jobs.cli.options import OneJob
from tatin_jobs.cli.output import console, on_terminal, say, write_bytes, write_text
from tatin_jobs.cli.session import Session, open_session
from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.models import Job
from tatin_jobs.results import LOG_FILE
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
    """Print what an agent printed.

    The stored log of a finished job, else the live one.
    """
    if raw and on_terminal():
        raise BadInput("--raw sends the guest's bytes as they are, and stdout is a terminal.", try_="leave out --raw.")
    with open_session() as session:
        job = session.store.job(session.store.resolve(job_id))
        if stored := _stored_log(session, job, attempt):
            _print_file(stored, raw)
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
    found = False
    for chunks in follow_log(session.store, job.id, follow=follow):
        for chunk in chunks:
            if attempt is not None and chunk.attempt != attempt:
                continue
            found = True
            if not raw:
                printer.show(chunk)
            elif chunk.stream != "tatin":
                write_bytes(chunk.data)
    printer.close()
    return found
