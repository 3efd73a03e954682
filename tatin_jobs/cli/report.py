"""``tatin report``: a batch, or a night."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import print_json, write_text
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.errors import BadInput
from tatin_jobs.models import Batch, Job
from tatin_jobs.reports import in_report, make_report, report_text
from tatin_jobs.store import Store
from tatin_jobs.units import MAX_DURATION_SECONDS, parse_duration

LONGEST_LIFE = timedelta(seconds=2 * MAX_DURATION_SECONDS)
"""A job that was submitted longer ago cannot have ended in the time of a report: jobs are found by their submit."""
MAX_JOBS = 100_000


def command(
    batch: Annotated[str | None, typer.Argument(metavar="BATCH", help="A batch; without it the last 24 hours.")] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="How far back, as 24h or 7d.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Report how a batch or the last night went.

    What needs a look, what failed and why, what passed.
    """
    back = _back(since)
    with open_session() as session:
        title, jobs = _batch_jobs(session.store, batch) if batch else _recent(session.store, since, back)
    report = make_report(jobs, title=title, now=now())
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        write_text(report_text(report))


def _back(since: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(since))
    except ValueError as error:
        raise BadInput(f"--since: {error}.") from error


def _batch_jobs(store: Store, prefix: str) -> tuple[str, list[Job]]:
    found = store.resolve_any(prefix)
    if isinstance(found, Batch):
        return f"Batch {found.id}", store.jobs(found.jobs)
    return f"Job {found.id}", [found]


def _recent(store: Store, since: str, back: timedelta) -> tuple[str, list[Job]]:
    moment = now()
    jobs = store.list_jobs(since=moment - back - LONGEST_LIFE, limit=MAX_JOBS)
    return f"The last {since}", [job for job in jobs if in_report(job, now=moment, since=back)]
