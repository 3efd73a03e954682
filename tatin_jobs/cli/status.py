"""``tatin status``: the machines of your own, and those that jobs have kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import cell, console, plain_table, print_json, say
from tatin_jobs.home import Home
from tatin_jobs.settings import load_settings
from tatin_jobs.units import format_duration

if TYPE_CHECKING:
    from worker.interactive import Found

GLYPHS = {"running": "●", "stopped": "○", "gone": "✗"}


def command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which machine; all without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the machines of `tatin up`, and those that jobs have kept."""
    from worker.interactive import find_machine, machines

    home = Home(load_settings(os.environ).home)
    found = machines(home) if name is None else [find_machine(home, name)]
    if as_json:
        print_json({"machines": [{**one.kept.model_dump(mode="json"), "state": one.state} for one in found]})
        return
    if not found:
        say("There is no machine here. Try: tatin up")
        return
    table = plain_table("MACHINE", "STATE", "AGE", "STAYS", "ENTER WITH", right=("AGE",))
    for one in found:
        table.add_row(*(cell(text) for text in _row(one)))
    console().print(table)


def _row(found: Found) -> tuple[str, ...]:
    kept, now = found.kept, datetime.now(UTC)
    age = format_duration((now - kept.made_at).total_seconds())
    stays = f"{format_duration(max(0, (kept.until - now).total_seconds()))} more" if kept.until else "until deleted"
    enter = f"tatin attach {kept.job}" if kept.job else f"tatin ssh {kept.name}"
    return kept.job or kept.name, f"{GLYPHS[found.state]} {found.state}", age, stays, enter
