"""``tatin drain``."""

from __future__ import annotations

from typing import Annotated

import typer

from tatin_jobs.cli.output import say
from tatin_jobs.cli.session import open_session
from tatin_jobs.errors import UnknownId


def command(
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="Its name, as `tatin workers` shows it.")],
    off: Annotated[bool, typer.Option("--off", help="Let it claim again.")] = False,
) -> None:
    """Tell a worker to claim nothing more.

    What it runs goes on.
    """
    with open_session() as session:
        known = [info.name for info in session.store.workers()]
        if worker not in known:
            raise UnknownId(
                f"There is no worker {worker[:60]!r}.",
                seen=f"known: {', '.join(known) or 'none'}",
                try_="tatin workers",
            )
        session.store.drain(worker, not off)
    say(f"{worker}: {'claims again' if off else f'drains; tatin drain {worker} --off lets it claim again'}")
