"""Where commands print: results to stdout, everything else to stderr; tables for people, JSON for programs.

Data becomes ``rich.text.Text`` after cleaning and never markup. Colour is for terminals only (rich honours NO_COLOR).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tatin_jobs.cli import SCHEMA_VERSION
from tatin_jobs.terminal import clean, clean_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

PIPE_WIDTH = 200
"""A table in a pipe has no terminal to fit into; one job stays one line."""


def console(*, stderr: bool = False) -> Console:
    """A console that takes nothing for markup, emoji or a number to colour."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width, soft_wrap=False)


def say(text: str) -> None:
    """A line for the person at the terminal, cleaned, to stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A line about something that may not be as it was meant."""
    say(f"! {text}")


def print_json(fields: Mapping[str, Any]) -> None:
    """One JSON object with its ``schema_version``, on one line of ASCII."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **fields}), flush=True)


def write_text(text: str) -> None:
    """Text to stdout as it is; the caller has cleaned it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_bytes(data: bytes) -> None:
    """Bytes to stdout, for pipes."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def on_terminal() -> bool:
    """Whether a person sees stdout."""
    return sys.stdout.isatty()


def cell(value: object, style: str = "", limit: int = 300) -> Text:
    """One cleaned line of any data, for a table."""
    from rich.text import Text

    return Text(clean_line(str(value), limit), style=style, no_wrap=True, overflow="ellipsis")


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; ``right`` names the columns of figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="ellipsis")
    return table
