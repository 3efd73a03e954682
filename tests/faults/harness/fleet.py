"""A server, hosts, a repository and jobs, put together; and what must hold of every job at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tatin_jobs import names
from tatin_jobs.blobs import Blobs
from tatin_jobs.localrepo import PackedRepo, pack_local_repo
from tatin_jobs.models import Batch, Job, JobSpec, Need, Repo
from tatin_jobs.results import attempt_folders, read_result
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store, connect
from tests.faults.harness.hosts import Host
from tests.faults.harness.servers import Server, server
from tests.support.attempts import make_repository
from tests.support.wait import until

SMALL = Need(cpus=1, memory_mib=256, disk_mib=100)


GATE = "echo up; while ! [ -e ../go ]; do sleep 0.05; done; echo did > did.txt"
"""An agent that runs until ``Host.let_agents_end``."""


@dataclass
class Fleet:
    """Everything of one test. ``store`` is the test's own way to the server, past every proxy."""

    root: Path
    server: Server
    store: Store
    blobs: Path
    repository: PackedRepo
    hosts: list[Host] = field(default_factory=list)

    def host(self, name: str, *, url: str = "", start: bool = True, **options: Any) -> Host:
        """A host of this fleet, with a worker on it."""
        made = Host(self.root / name, name, url or self.server.url, blobs=self.blobs, **options)
        self.hosts.append(made)
        if start:
            made.start()
        return made

    def spec(self, command: str = "echo did > did.txt; echo said", **changes: Any) -> JobSpec:
        """A job that runs a shell line as its agent."""
        values: dict[str, Any] = {
            "name": "job",
            "repo": Repo(blob=self.repository.blob, commit=self.repository.commit, path="repo"),
            "tool": "command",
            "command": command,
            "prompt": "do it",
            "timeout_seconds": 60,
        }
        return JobSpec(**{**values, **changes})

    def jobs(self, *specs: JobSpec, need: Need = SMALL) -> list[Job]:
        """Records for these specs, of one batch; nothing is submitted."""
        now, batch = datetime.now(UTC), names.batch_id()
        return [
            Job(id=names.job_id(one.name), batch=batch, spec=one, need=need, state=JobState.QUEUED, created_at=now)
            for one in specs
        ]

    def submit(self, *specs: JobSpec, need: Need = SMALL, store: Store | None = None) -> list[Job]:
        """Submit as one batch; the records."""
        jobs = self.jobs(*specs, need=need)
        batch = Batch(id=jobs[0].batch, created_at=jobs[0].created_at, jobs=tuple(job.id for job in jobs))
        (store or self.store).submit(batch, jobs)
        return jobs

    def printed(self, job: Job, text: bytes, timeout: float = 30) -> None:
        """Wait until the agent has printed this."""
        until(lambda: any(text in one.data for one in self.store.read_log(job.id)), timeout, f"{text!r} of {job.id}")

    def over(self, *jobs: Job, timeout: float = 60) -> list[Job]:
        """Wait until these jobs are finished; their records."""
        ids = [job.id for job in jobs]

        def finished() -> bool:
            return all(job.state is JobState.FINISHED for job in self.store.jobs(ids))

        until(finished, timeout, f"the end of {len(ids)} jobs")
        return self.store.jobs(ids)

    def check(self, *jobs: Job) -> None:
        """Promises 1, 2, 3: nothing lost, nothing accepted twice, nothing left."""
        assert problems(self.store, self.hosts, [job.id for job in jobs]) == []
        for host in self.hosts:
            host.wait_clean()
        assert self.store.misplaced() == []
        assert self.store.beats() == {}


def problems(store: Store, hosts: list[Host], ids: list[str]) -> list[str]:
    """What is wrong with these jobs, which should be over: each once, by the store and by what lies on the hosts."""
    found = []
    records = {job.id: job for job in store.jobs(ids)}
    for job_id in ids:
        job = records.get(job_id)
        if job is None or job.state is not JobState.FINISHED:
            found.append(f"{job_id} is lost: {job.state if job else 'no record'}")
            continue
        moves = [event.move for event in store.events(job_id)]
        ends = moves.count("finish")
        if ends != 1 and not (ends == 0 and job.outcome in (Outcome.LOST, Outcome.CANCELLED)):
            found.append(f"{job_id} ended {ends} times: {moves}")
        accepted = [
            number
            for host in hosts
            for number, folder in attempt_folders(host.home, job_id)
            if (result := read_result(folder)) and result.accepted
        ]
        if len(accepted) > 1:
            found.append(f"{job_id} has {len(accepted)} accepted results: attempts {accepted}")
    return found


@contextmanager
def fleet(
    root: Path, kind: str = "valkey", fsync: str = "everysec", environment: Mapping[str, str] | None = None
) -> Iterator[Fleet]:
    """A fleet without hosts yet; at the end every process of it is gone."""
    with ExitStack() as stack:
        running = stack.enter_context(server(root / "server", kind, fsync, environment))
        store = Store(connect(running.url))
        store.prepare()
        blobs = root / "blobs"
        blobs.mkdir()
        repository = pack_local_repo(make_repository(root / "repo"), None, Blobs(blobs))
        made = Fleet(root, running, store, blobs, repository)
        stack.callback(store.close)
        try:
            yield made
        finally:
            for host in made.hosts:
                host.kill()
