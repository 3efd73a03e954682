"""One attempt at a time, run by the real runner on a real store, with whatever sandbox a test wants."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tatin_jobs import names
from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.localrepo import PackedRepo, pack_local_repo
from tatin_jobs.models import Batch, Job, JobSpec, Lease, Need, Offer, Repo
from tatin_jobs.results import Result, read_result
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store, open_store
from worker.collect import Unpackers
from worker.context import Context
from worker.control import Control
from worker.journal import Journal
from worker.repository import Repositories
from worker.runner import Attempt
from worker.sandboxes.base import SandboxProvider

OFFER = Offer(cpus=4, memory_mib=4096, disk_mib=10_000, slots=4)
SMALL = Need(cpus=1, memory_mib=256, disk_mib=100)


def make_repository(path: Path) -> Path:
    """A repository with one commit: README.md, src/a.txt and a program."""
    (path / "src").mkdir(parents=True)
    (path / "README.md").write_text("# A project\n")
    (path / "src" / "a.txt").write_text("one\ntwo\n")
    (path / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (path / "run.sh").chmod(0o755)
    git = ["git", "-C", str(path), "-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(path)], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=first"], check=True)
    return path


@dataclass
class Bench:
    """A store, a home and a repository; ``run`` takes one job through one attempt."""

    home: Home
    settings: Settings
    store: Store
    provider: SandboxProvider
    repository: PackedRepo
    need: Need = SMALL
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.context = Context(
            settings=self.settings,
            home=self.home,
            home_id=self.home.id(),
            offer=OFFER,
            store=self.store,
            blobs=Blobs(self.home.blobs),
            provider=self.provider,
            repositories=Repositories(self.home),
            unpackers=Unpackers(),
            journal=Journal(self.home.journal),
        )

    def spec(self, **changes: Any) -> JobSpec:
        """A job that runs a shell line as its agent."""
        values: dict[str, Any] = {
            "name": "job",
            "repo": Repo(blob=self.repository.blob, commit=self.repository.commit, path="repo"),
            "tool": "command",
            "command": "echo done > done.txt",
            "prompt": "do it",
            "timeout_seconds": 30,
        }
        return JobSpec(**{**values, **changes})

    def submit(self, spec: JobSpec) -> Job:
        """One job as a batch of its own."""
        now = datetime.now(UTC)
        batch = names.batch_id()
        job = Job(
            id=names.job_id(spec.name), batch=batch, spec=spec, need=self.need, state=JobState.QUEUED, created_at=now
        )
        self.store.submit(Batch(id=batch, created_at=now, jobs=(job.id,)), [job])
        return job

    def claim(self) -> Lease:
        """The lease of the first job in line."""
        lease = self.store.claim(
            self.settings.worker_name,
            OFFER,
            self.context.lingering.needs(),
            names.short_id(),
            self.settings.lease_seconds,
        )
        assert lease is not None, "nothing to claim"
        return lease

    async def attempt(self, lease: Lease, control: Control | None = None) -> None:
        """Run an attempt to its end."""
        try:
            await Attempt(self.context, lease, control or Control()).run()
        finally:
            await self.context.unpackers.aclose()  # the next test has another event loop

    async def run(self, control: Control | None = None, **changes: Any) -> tuple[Job, Result]:
        """Submit, claim and run; the job's record and the attempt's result."""
        self.submit(self.spec(**changes))
        lease = self.claim()
        await self.attempt(lease, control)
        result = read_result(self.folder(lease))
        assert result is not None, "no result was written"
        return self.store.job(lease.job.id), result

    def folder(self, lease: Lease) -> Path:
        """Where this attempt's results lie."""
        return self.home.attempt(lease.job.id, lease.attempt)

    def job_folder(self, job: Job) -> Path:
        """Where the newest attempt's results lie."""
        return self.home.attempt(job.id, job.attempt)


@contextmanager
def bench(tmp_path: Path, make_provider: Any, **settings: Any) -> Iterator[Bench]:
    """A Bench with an embedded store that ends with it; ``make_provider(home)`` gives the sandboxes."""
    home = Home(tmp_path / "home")
    home.prepare()
    chosen = Settings(home=home.root, worker_name="bench", **settings)
    repository = pack_local_repo(make_repository(tmp_path / "repo"), None, Blobs(home.blobs))
    with open_store(chosen, home) as store:
        yield Bench(home, chosen, store, make_provider(home), repository)
