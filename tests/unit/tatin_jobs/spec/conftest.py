"""A folder for job files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.tatin_jobs.spec.files import JobFolder


@pytest.fixture
def jobs(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)
