"""``tatin delete``: remove a machine of your own with all that is in it."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from tatin_jobs.cli.output import say
from tatin_jobs.errors import BadInput
from tatin_jobs.home import Home
from tatin_jobs.settings import load_settings


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which machine.")] = "tatin",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a machine of `tatin up`, with all that is in it."""
    from worker.interactive import delete, find_machine

    settings = load_settings(os.environ)
    home = Home(settings.home)
    find_machine(home, name)
    if not yes and not _sure(name):
        raise BadInput(f"'{name}' was left as it is.", try_=f"tatin delete {name} --yes")
    asyncio.run(delete(settings, home, name))
    say(f"✓ '{name}' is gone")


def _sure(name: str) -> bool:
    try:
        return typer.confirm(f"Remove '{name}' and all that is in it?", err=True)
    except typer.Abort:
        return False
