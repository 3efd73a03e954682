"""``tatin attach``: a shell in the virtual machine of a job that runs here, or that a job has kept."""

from __future__ import annotations

from typing import Annotated

import typer

from tatin_jobs.cli.output import warn
from tatin_jobs.cli.session import Session, open_session
from tatin_jobs.errors import WrongState
from tatin_jobs.models import Job
from tatin_jobs.states import JobState

CONTEXT = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What follows the name is the command's, its options too."""


def command(
    job: Annotated[str, typer.Argument(metavar="ID", help="A job, or the beginning of its id.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="What to run there; a shell without it.")
    ] = None,
) -> int:
    """Open a shell in the virtual machine of a job, on the host that it runs on.

    One that `keep` left is started for it, and stopped again afterwards.
    """
    from worker.interactive import run_at_terminal, shell

    with open_session() as session:
        sandbox = _sandbox_of(session, session.store.job(session.store.resolve(job)))
        settings, home = session.settings, session.home
    return run_at_terminal(shell(settings, home, sandbox, words or [], warn))


def _sandbox_of(session: Session, job: Job) -> str:
    """Raises WrongState: it has no machine on this host."""
    from worker.interactive import machines
    from worker.sandboxes.names import sandbox_name

    for found in machines(session.home):
        if found.kept.job == job.id and found.state != "gone":
            return found.kept.sandbox
    if job.state is JobState.RUNNING:
        name = sandbox_name(session.home.id(), job.id, job.attempt)
        if (session.home.sandboxes / name).is_dir():
            return name
        raise WrongState(f"Job '{job.id}' does not run on this host.", try_="tatin show has the worker that runs it.")
    raise WrongState(
        f"Job '{job.id}' has no machine any more.", try_="`keep: on-failure` or `keep: always` in the job file."
    )
