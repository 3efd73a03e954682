"""``tatin submit``: job files in, one job id a line out."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tatin_jobs.blobs import Blobs
from tatin_jobs.cli.options import AsJson, JobFilesArgument, Overrides
from tatin_jobs.cli.output import print_json, say, warn, write_text
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.settings import load_settings
from tatin_jobs.states import JobState
from tatin_jobs.submitting import (
    JobFiles,
    Submitted,
    at_once_range,
    live_workers,
    submit_files,
    take_nothing,
    why_never,
)
from tatin_jobs.terminal import clean

if TYPE_CHECKING:
    from tatin_jobs.models import JobSpec, WorkerInfo
    from tatin_jobs.spec import ReadJob


def command(
    files: JobFilesArgument,
    overrides: Overrides = [],  # noqa: B006  Typer reads the default, nobody changes it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the jobs as they would be submitted, and submit nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Queue jobs. All of one submit are a batch; prints one job id a line."""
    job_files = JobFiles(files, overrides)
    if dry_run:
        _show_resolved(job_files, as_json)
        return
    with open_session() as session:
        submitted = submit_files(session.store, session.settings, session.home, job_files, now())
        workers = live_workers(session.store)
    tell_submitted(submitted, workers, as_json)


def tell_submitted(submitted: Submitted, workers: list[WorkerInfo], as_json: bool) -> None:
    """Warnings, the ids (or the batch as JSON), and how it goes on."""
    tell_warnings(submitted, workers)
    if as_json:
        _print_submitted(submitted, workers)
    else:
        write_text("".join(f"{job.id}\n" for job in submitted.jobs))
    say(_how_it_goes_on(submitted, workers))


def tell_warnings(submitted: Submitted, workers: list[WorkerInfo]) -> None:
    """Everything that may not be as it was meant, to stderr."""
    for text in submitted.warnings:
        warn(text)
    for info in workers:
        if info.egress_warning:
            warn(f"worker '{info.name}' ({info.sandbox}) does not keep all network rules: {info.egress_warning}.")
    for line in take_nothing(workers):
        warn(f"{line}.")
    for job in submitted.jobs:
        if why := why_never(job.need, workers):
            warn(f"{job.id}: {why}.")


def _how_it_goes_on(submitted: Submitted, workers: list[WorkerInfo]) -> str:
    """One line: the batch, and when its jobs will run."""
    count = len(submitted.jobs)
    held = sum(job.state is JobState.HELD for job in submitted.jobs)
    text = f"batch {submitted.batch.id}: {count} job{'' if count == 1 else 's'} {'held' if held == count else 'queued'}"
    if 0 < held < count:
        text += f" ({held} of them held)"
    if not workers:
        return f"{text}; no worker is running; start `tatin worker`"
    fewest, most = at_once_range([job.need for job in submitted.jobs], workers)
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    where = "here" if len(workers) == 1 else f"on {len(workers)} workers"
    return f"{text}; {number} of these run at once {where}"


def _print_submitted(submitted: Submitted, workers: list[WorkerInfo]) -> None:
    """The batch as JSON."""
    fewest, most = at_once_range([job.need for job in submitted.jobs], workers)
    print_json(
        {
            "batch": submitted.batch.id,
            "jobs": [
                {"id": job.id, "name": job.spec.name, "state": job.state, "retry_of": job.retry_of}
                for job in submitted.jobs
            ],
            "warnings": list(submitted.warnings),
            "workers": len(workers),
            "at_once": {"fewest": fewest, "most": most},
        }
    )


def _show_resolved(files: JobFiles, as_json: bool) -> None:
    """The jobs as they would be, their blobs in a folder that goes away again."""
    settings = load_settings(os.environ)
    with tempfile.TemporaryDirectory(prefix="tatin-dry-run-") as folder:
        read = files.read(settings, Blobs(Path(folder)), now())
    for item in read:
        for text in item.warnings:
            warn(f"{item.source}: {text}")
    if any(item.spec.cell or item.spec.trials > 1 for item in read):
        say(_cells([item.spec for item in read]))
    if as_json:
        print_json({"jobs": [_resolved(item) for item in read]})
    else:
        write_text(clean(_yaml([_resolved(item) for item in read])))


def _cells(specs: Sequence[JobSpec]) -> str:
    """The combinations of a submit, a line each, with how often each runs."""
    counts = Counter((spec.name, *(f"{axis}={value}" for axis, value in spec.cell.items())) for spec in specs)
    lines = [f"{len(specs)} jobs in {len(counts)} cells:"]
    lines += [f"  {count} x {'  '.join(cell)}" for cell, count in counts.items()]
    return "\n".join(lines)


def _resolved(item: ReadJob) -> dict[str, Any]:
    return {
        "source": item.source,
        "spec": item.spec.model_dump(mode="json", exclude_none=True),
        "need": item.need.model_dump(mode="json"),
    }


def _yaml(documents: list[dict[str, Any]]) -> str:
    """Documents as YAML; a text of several lines stays one that can be read."""
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import walk_tree

    yaml = YAML()
    yaml.explicit_start = True
    yaml.width = 100
    out = StringIO()
    for document in documents:
        walk_tree(document)
        yaml.dump(document, out)
    return out.getvalue()
