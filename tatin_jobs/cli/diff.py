"""``tatin diff``: the patch of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.attempts import StoredAttempt, meant_attempt
from tatin_jobs.cli.options import OneJob
from tatin_jobs.cli.output import console, on_terminal, say, write_bytes
from tatin_jobs.cli.session import open_session
from tatin_jobs.errors import BadInput, TatinError
from tatin_jobs.models import Job
from tatin_jobs.results import PATCH_FILE

_BLOCK = 2**20


def command(
    job_id: OneJob,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the patch's bytes to this file.")
    ] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, metavar="N", help="This attempt's patch.")] = None,
) -> None:
    """Print a job's patch.

    Its bytes to a pipe or a file, cleaned and coloured to a terminal.
    """
    with open_session() as session:
        job = session.store.job(session.store.resolve(job_id))
        stored = meant_attempt(session.home, job, attempt)
    path = _patch(job, stored)
    if path.stat().st_size == 0:
        say(f"{job.id}: the patch is empty; the agent changed nothing")
    if output is not None:
        _copy(path, output)
    elif on_terminal():
        _show(path)
    else:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                write_bytes(block)


def _patch(job: Job, stored: StoredAttempt) -> Path:
    path = stored.folder / PATCH_FILE
    if not path.is_file():
        why = stored.result.patch_missing or stored.result.message if stored.result else "the attempt has no result yet"
        raise TatinError(f"Job '{job.id}' has no patch.", seen=why or None, try_=f"tatin show {job.id}")
    return path


def _copy(path: Path, output: Path) -> None:
    import shutil

    try:
        shutil.copyfile(path, output)
    except (OSError, shutil.SameFileError) as error:
        raise BadInput(f"The patch cannot be written to '{output}'.", seen=str(error)) from error


def _show(path: Path) -> None:
    from tatin_jobs.cli.patch_view import coloured

    screen = console()
    for line in coloured(path):
        screen.print(line, soft_wrap=True)
