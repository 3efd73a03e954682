"""``tatin artifacts``: results out of the home, into a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.attempts import StoredAttempt, meant_attempt
from tatin_jobs.cli.fetching import DEFAULT_FOLDER, fetch
from tatin_jobs.cli.options import AsJson, JobsOrBatches
from tatin_jobs.cli.output import cell, console, plain_table, print_json, say, write_text
from tatin_jobs.cli.picking import pick
from tatin_jobs.cli.session import open_session
from tatin_jobs.errors import EXIT_OK, TatinError
from tatin_jobs.terminal import clean_line
from tatin_jobs.units import format_size


def command(
    ids: JobsOrBatches,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Where to; of several jobs each gets a folder in it. Default: work/<id>.",
        ),
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Name the files, and copy nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds something else.")] = False,
    as_json: AsJson = False,
) -> int:
    """Fetch the results of jobs.

    Patch, result, logs, transcripts and artifacts.
    """
    code = EXIT_OK
    fetched = []
    with open_session() as session:
        picked = pick(session.store, ids)
        several = len(picked) > 1 or any(one.by_batch for one in picked)
        for one in picked:
            try:
                stored = meant_attempt(session.home, one.job)
                if only_list:
                    fetched.append(_listed(one.job.id, stored, as_json))
                else:
                    target = target_folder(output, one.job.id, several=several)
                    count = fetch(stored.folder, target, one.job.id, force=force)
                    fetched.append(
                        {"id": one.job.id, "attempt": stored.number, "folder": str(target.absolute()), "files": count}
                    )
                    if not as_json:
                        write_text(f"{clean_line(str(target))}\n")
            except TatinError as error:  # the others of a batch are fetched all the same
                if not one.by_batch and len(picked) == 1:
                    raise
                say(str(error))
                code = code or error.exit_code
    if as_json:
        print_json({"jobs": fetched})
    return code


def target_folder(output: Path | None, job_id: str, *, several: bool) -> Path:
    """``work/<id>`` here; with a folder given that one, or one in it for each of several jobs."""
    if output is None:
        return Path(DEFAULT_FOLDER, job_id)
    return output / job_id if several else output


def _listed(job_id: str, stored: StoredAttempt, as_json: bool) -> dict[str, object]:
    digests = {f"artifacts/{item.name}": item.sha256 for item in stored.result.artifacts} if stored.result else {}
    files = [
        {"name": name, "size_bytes": size, "sha256": digests.get(name)} for name, size in sorted(_files(stored.folder))
    ]
    if not as_json:
        table = plain_table("SIZE", "FILE", right=("SIZE",))
        for file in files:
            table.add_row(cell(format_size(int(str(file["size_bytes"])))), cell(file["name"], limit=1000))
        say(f"{job_id}, attempt {stored.number}: {stored.folder}")
        console().print(table)
    return {"id": job_id, "attempt": stored.number, "files": files}


def _files(folder: Path) -> list[tuple[str, int]]:
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            found.append((str(path.relative_to(folder)), path.lstat().st_size))
    return found
