"""The last page of ``tatin run``: results fetched, what each job changed, and what to type next."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from tatin_jobs.cli.artifacts import target_folder
from tatin_jobs.cli.attempts import meant_attempt
from tatin_jobs.cli.fetching import fetch
from tatin_jobs.cli.jobs_view import glyph, jobs_table, status, style
from tatin_jobs.cli.output import console, warn
from tatin_jobs.cli.patch_view import diffstat, stat_lines
from tatin_jobs.cli.session import now
from tatin_jobs.errors import TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import Job
from tatin_jobs.reports import make_report
from tatin_jobs.results import PATCH_FILE
from tatin_jobs.states import JobState
from tatin_jobs.terminal import clean_line

IN_FULL = 10
"""More jobs than these are shown as a table only."""


def show_ending(home: Home, jobs: list[Job], output: Path | None) -> None:
    """Fetch each job's results and print what came of it."""
    screen = console()
    screen.print()
    folders = {job.id: _fetched(home, job, output, several=len(jobs) > 1) for job in jobs if job.attempt}
    if len(jobs) > 1:
        screen.print(jobs_table(jobs, {}, now()))
        screen.print()
    for job in jobs[:IN_FULL]:
        screen.print(
            Text(f"{glyph(job)} {job.id}  {status(job)}  {clean_line(job.message)}".rstrip(), style=style(job)),
            soft_wrap=True,
        )
        for line in _details(job, folders.get(job.id)):
            screen.print(Text(f"  {line}"), soft_wrap=True)
    if len(jobs) > 1:
        screen.print(Text(f"tatin report {jobs[0].batch}"), soft_wrap=True)


def _fetched(home: Home, job: Job, output: Path | None, *, several: bool) -> Path | None:
    """The folder that this job's results were copied to."""
    if job.state is not JobState.FINISHED:
        return None
    target = target_folder(output, job.id, several=several)
    try:
        fetch(meant_attempt(home, job).folder, target, job.id)
    except TatinError as error:
        warn(f"{job.id}: {error}")
        return None
    return target


def _details(job: Job, folder: Path | None) -> list[str]:
    lines = []
    if job.summary and job.summary.final_text:
        lines.append(f"said: {clean_line(job.summary.final_text, 200)}")
    if folder:
        lines += _changes(folder / PATCH_FILE)
        lines.append(f"results: {clean_line(str(folder))}")
    # The report knows what to do about a job that ended so.
    report = make_report([job], title="", now=now())
    shown = [*report.needs_a_look, *report.passed, *report.cancelled, *report.open]
    shown += [line for group in report.failed for line in group.jobs]
    lines.append(f"next: {shown[0].next}")
    return lines


def _changes(patch: Path) -> list[str]:
    try:
        with patch.open("rb") as file:
            return list(stat_lines(diffstat(file)))
    except OSError:
        return []
