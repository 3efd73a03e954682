"""Records with every field defaulted; a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tatin_jobs import names
from tatin_jobs.models import Batch, Job, JobSpec, Need, Repo
from tatin_jobs.states import JobState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_spec(**changes: Any) -> JobSpec:
    """A job of the command tool on a repository that nobody fetches."""
    values: dict[str, Any] = {
        "name": "job",
        "repo": Repo(url="https://example.invalid/app.git"),
        "tool": "command",
        "command": "true",
    }
    return JobSpec(**{**values, **changes})


def make_job(**changes: Any) -> Job:
    """A queued job; ``changes`` go to its spec."""
    spec = make_spec(**changes)
    return Job(
        id=names.job_id(spec.name),
        batch=names.batch_id(),
        spec=spec,
        need=Need(cpus=1, memory_mib=256, disk_mib=100),
        state=JobState.QUEUED,
        created_at=NOW,
    )


def make_batch(jobs: list[Job]) -> Batch:
    """The batch of these jobs."""
    return Batch(id=jobs[0].batch, created_at=NOW, jobs=tuple(job.id for job in jobs))
