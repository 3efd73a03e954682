"""``tatin down``: stop a machine of your own; its disk stays."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from tatin_jobs.cli.output import say
from tatin_jobs.home import Home
from tatin_jobs.settings import load_settings


def command(name: Annotated[str, typer.Argument(metavar="NAME", help="Which machine.")] = "tatin") -> None:
    """Stop a machine of `tatin up`.

    What is on its disk is there again at the next `tatin up`.
    """
    from worker.interactive import take_down

    settings = load_settings(os.environ)
    stopped = asyncio.run(take_down(settings, Home(settings.home), name))
    say(f"○ '{name}' is stopped" if stopped else f"○ '{name}' was not running")
