"""Job files: YAML as people write it -> resolved jobs, and the JSON Schema for editors. See ``docs/job-file.md``."""

from __future__ import annotations

from tatin_jobs.spec.need import need_of
from tatin_jobs.spec.reading import ReadJob, read_jobs
from tatin_jobs.spec.schema import job_schema

__all__ = ["ReadJob", "job_schema", "need_of", "read_jobs"]
