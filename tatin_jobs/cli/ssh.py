"""``tatin ssh``: a shell, or one command, in a machine of your own."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tatin_jobs.cli.output import warn
from tatin_jobs.home import Home
from tatin_jobs.settings import load_settings

CONTEXT = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What follows the name is the command's, its options too."""


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which machine.")] = "tatin",
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="What to run there; a shell without it.")
    ] = None,
) -> int:
    """Open a shell in a machine of `tatin up`, or run a command there.

    Its exit status is the command's.
    """
    from worker.interactive import find_machine, run_at_terminal, shell

    settings = load_settings(os.environ)
    home = Home(settings.home)
    found = find_machine(home, name)
    return run_at_terminal(shell(settings, home, found.kept.sandbox, words or [], warn))
