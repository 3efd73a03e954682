"""``tatin up``: one virtual machine for a person, made or started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tatin_jobs.cli.output import say, warn
from tatin_jobs.home import Home
from tatin_jobs.models import DEFAULT_IMAGE
from tatin_jobs.settings import load_settings


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which machine; there may be several.")] = "tatin",
    image: Annotated[str, typer.Option("--image", metavar="NAME", help="What to make it from.")] = DEFAULT_IMAGE,
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="What is copied into its work/ when it is made.")
    ] = Path("work"),
) -> None:
    """Start a virtual machine of your own, or make it.

    TATIN_CPUS, TATIN_MEMORY (MiB) and TATIN_DISK (GB) say how large. It stays until `tatin delete`.
    """
    from worker.interactive import bring_up, run_at_terminal

    settings = load_settings(os.environ)
    home = Home(settings.home)
    home.prepare()
    run_at_terminal(bring_up(settings, home, name, image, work, say, warn))
    say(f"● '{name}' is up: tatin ssh{'' if name == 'tatin' else f' {name}'}")
