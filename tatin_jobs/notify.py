"""What the ``notify`` command of a worker's settings is told about a batch: facts, as JSON on its stdin."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tatin_jobs.models import Batch, Job
from tatin_jobs.terminal import clean_line

SCHEMA_VERSION = 1
MAX_JOBS = 200
"""More are counted and not listed: the command is meant to tell a person."""


def notification(batch: Batch, jobs: list[Job]) -> dict[str, Any]:
    """The facts of a batch that is over, or of which only held jobs are left; nothing in it but JSON types.

    ``counts`` has each outcome, and each state of the jobs that have none yet. Texts are one clean line each.
    """
    counts = Counter(str(job.outcome or job.state) for job in jobs)
    return {
        "schema_version": SCHEMA_VERSION,
        "batch": batch.id,
        "source": clean_line(batch.source),
        "created_at": batch.created_at.isoformat(),
        "counts": dict(sorted(counts.items())),
        "jobs": [_facts(job) for job in jobs[:MAX_JOBS]],
        "jobs_not_listed": max(0, len(jobs) - MAX_JOBS),
        "next": f"tatin report {batch.id}",
    }


def _facts(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": str(job.state),
        "outcome": str(job.outcome) if job.outcome else None,
        "reason": str(job.reason) if job.reason else None,
        "message": clean_line(job.message),
    }
