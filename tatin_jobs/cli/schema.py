"""``tatin schema``: the JSON Schema of a job file, for editors."""

from __future__ import annotations

import json

from tatin_jobs.cli.output import write_text


def command() -> None:
    """Print the JSON Schema of a job file, for editors."""
    from tatin_jobs.spec import job_schema

    write_text(json.dumps(job_schema(), indent=2) + "\n")
