"""Job files in a folder of a test, and what the reader makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import BadJobFile, Complaint
from tatin_jobs.models import JobSpec
from tatin_jobs.settings import Settings
from tatin_jobs.spec import ReadJob, read_jobs

NOW = datetime(2030, 1, 15, 12, 0, tzinfo=UTC)
MINIMAL = "repo: https://example.com/app.git\ncommand: make\n"
"""The shortest job that there is; two lines, so that what a test adds begins on the third."""


@dataclass
class JobFolder:
    """A folder with job files, and blobs beside it."""

    root: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.root / "jobs"
        self.blobs = Blobs(self.root / "blobs")
        self.settings = Settings(home=self.root, worker_name="w", default_cpus=3, default_memory_mib=300)
        self.folder.mkdir()
        self.blobs.folder.mkdir()

    def write(self, text: str | bytes, name: str = "job.yaml") -> str:
        """Put a file into the folder; its path, as a user would give it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def read(self, *files: str, overrides: Sequence[str] = ()) -> list[ReadJob]:
        return read_jobs(
            files,
            environ=self.environ,
            overrides=overrides,
            settings=self.settings,
            blobs=self.blobs,
            now=NOW,
        )

    def job(self, text: str, overrides: Sequence[str] = ()) -> JobSpec:
        """The one job of a file with this text."""
        (job,) = self.read(self.write(text), overrides=overrides)
        return job.spec

    def field(self, text: str) -> JobSpec:
        """A minimal job with ``text`` added."""
        return self.job(MINIMAL + text)

    def complaints(self, *texts: str | bytes, overrides: Sequence[str] = ()) -> tuple[Complaint, ...]:
        """What is wrong with files of these texts (``0.yaml``, ``1.yaml``, ...). Nothing is left behind."""
        files = [self.write(text, f"{index}.yaml") for index, text in enumerate(texts)]
        with pytest.raises(BadJobFile) as caught:
            self.read(*files, overrides=overrides)
        assert list(self.blobs.folder.iterdir()) == []
        return caught.value.complaints

    def complaint(self, text: str | bytes, overrides: Sequence[str] = ()) -> Complaint:
        """The one thing wrong with a file of this text."""
        (found,) = self.complaints(text, overrides=overrides)
        return found

    def refused(self, text: str) -> Complaint:
        """The one thing wrong with a minimal job to which ``text`` is added."""
        return self.complaint(MINIMAL + text)
