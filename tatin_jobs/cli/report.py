"""``tatin report``: a batch, or a night."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import console, print_json, say, write_text
from tatin_jobs.cli.scores_view import scores_table
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.errors import BadInput
from tatin_jobs.models import Batch, Job
from tatin_jobs.reports import in_report, make_report, report_text
from tatin_jobs.scores import is_benchmark, make_scores
from tatin_jobs.scores_text import scores_csv
from tatin_jobs.store import Store
from tatin_jobs.units import MAX_DURATION_SECONDS, parse_duration

LONGEST_LIFE = timedelta(seconds=2 * MAX_DURATION_SECONDS)
"""A job that was submitted longer ago cannot have ended in the time of a report: jobs are found by their submit."""
MAX_JOBS = 100_000


def command(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="A batch; without it the last 24 hours.")] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="How far back, as 24h or 7d.")] = "24h",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report with its charts as one page.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the figures of the comparison, a row each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report how a batch or the last night went.

    Of a matrix or trials, how they compare; then what needs a look, what failed and why, what passed.
    """
    back = _back(since)
    with open_session() as session:
        about = _of_batch(session.store, batch) if batch else _recent(session.store, since, back)
    report, scores = make_report(about.jobs, title=about.title, now=now()), make_scores(about.jobs)
    if html:
        from tatin_jobs.report_page import report_page

        _write(html, report_page(report, scores, about.jobs, source=about.source))
    if csv:
        _write(csv, scores_csv(scores))
    if as_json:
        print_json({**report.model_dump(mode="json"), "scores": [score.model_dump(mode="json") for score in scores]})
        return
    if is_benchmark(about.jobs):
        console().print(scores_table(scores))
        write_text("\n")
    write_text(report_text(report))


@dataclass(frozen=True)
class _About:
    """What a report is on; ``source``: the files of a batch."""

    title: str
    jobs: list[Job]
    source: str = ""


def _write(path: Path, text: str) -> None:
    """Put it there whole, or leave what was there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput(f"'{path}' cannot be written.", seen=str(error)) from error
    say(f"wrote {path}")


def _back(since: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(since))
    except ValueError as error:
        raise BadInput(f"--since: {error}.") from error


def _of_batch(store: Store, prefix: str) -> _About:
    found = store.resolve_any(prefix)
    if isinstance(found, Batch):
        return _About(f"Batch {found.id}", store.jobs(found.jobs), found.source)
    return _About(f"Job {found.id}", [found])


def _recent(store: Store, since: str, back: timedelta) -> _About:
    moment = now()
    jobs = store.list_jobs(since=moment - back - LONGEST_LIFE, limit=MAX_JOBS)
    return _About(f"The last {since}", [job for job in jobs if in_report(job, now=moment, since=back)])
