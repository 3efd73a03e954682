"""``tatin prune``: old results and records, and blobs that no job names."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import print_json, write_text
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.errors import BadInput
from tatin_jobs.pruning import Pruned, prune
from tatin_jobs.units import format_size, parse_duration


def command(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="Only what finished longer ago, as 14d or 12h.")
    ] = "14d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old finished jobs and their results.

    And blobs that no job names. Nothing of a job that waits or runs is touched.
    """
    try:
        age = timedelta(seconds=parse_duration(older_than))
    except ValueError as error:
        raise BadInput(f"--older-than: {error}.") from error
    with open_session() as session:
        pruned = prune(session.store, session.home, before=now() - age, dry_run=dry_run)
    if as_json:
        print_json(_facts(pruned, dry_run))
        return
    would = "would go" if dry_run else "removed"
    lines = [f"{job}\n" for job in pruned.jobs] if dry_run else []
    counts = f"{len(pruned.jobs)} jobs, {len(pruned.folders)} result folders, {len(pruned.blobs)} blobs"
    write_text("".join([*lines, f"{would}: {counts}, {format_size(pruned.size_bytes)}\n"]))


def _facts(pruned: Pruned, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "jobs": list(pruned.jobs),
        "folders": [str(path) for path in pruned.folders],
        "blobs": [path.name for path in pruned.blobs],
        "size_bytes": pruned.size_bytes,
    }
