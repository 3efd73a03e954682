"""Renders the templates of ``provision/`` for the guest of one job.

An undefined name is an error, never an empty string. Values from a job are data: a template puts them through
``tojson``, which makes them inert in JSON whatever they hold.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from tatin_jobs.data import provision_folder
from tatin_jobs.errors import AttemptError


def render(name: str, /, **values: Any) -> bytes:
    """The template ``name`` of ``provision/`` with these values, as the bytes of a file.

    Raises:
        AttemptError: no such template, or it uses a name that has no value; a fault in Tatin, not in the job.
        PartMissing: ``provision/`` itself is not there.
    """
    return _render(provision_folder(), name, values)


def _render(folder: Path, name: str, values: dict[str, Any]) -> bytes:
    try:
        return _environment(folder).get_template(name).render(values).encode()
    except jinja2.TemplateError as error:
        raise AttemptError(f"The template '{name}' cannot be rendered.", seen=f"{error}") from error


@cache
def _environment(folder: Path) -> jinja2.Environment:
    """One environment a folder. When a person's own templates come, their folder goes before ours in the loader."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # configuration, not HTML; `tojson` escapes the values
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
