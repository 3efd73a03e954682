"""Records and a queue for tests of the commands, and the commands themselves as their users start them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tatin_jobs.home import Home
from tatin_jobs.models import Batch, Job, JobSpec, Lease, Need, Offer, Repo, WorkerInfo
from tatin_jobs.names import batch_id, job_id
from tatin_jobs.results import AgentFacts, ArtifactFacts, PatchFacts, Result, write_result
from tatin_jobs.settings import load_settings
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store, open_store

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OFFER = Offer(cpus=4, memory_mib=4096, disk_mib=40_000, slots=4, tags=("arch:amd64", "os:linux"))


def make_job(name: str = "fix", **fields: Any) -> Job:
    """A job's record; fields of its spec and its record by their names."""
    of_spec = {key: fields.pop(key) for key in list(fields) if key in JobSpec.model_fields}
    spec = JobSpec(**{"name": name, "repo": Repo(url="https://example.com/app.git"), "tool": "command", **of_spec})
    values = {"id": job_id(name), "batch": "b-none", "need": Need(cpus=1, memory_mib=256, disk_mib=100)}
    return Job(**{**values, "state": JobState.QUEUED, "created_at": NOW, **fields}, spec=spec)


def make_result(job: Job, attempt: int = 1, **fields: Any) -> Result:
    """The result of a job's attempt that ended well."""
    values = {
        "job": job.id,
        "batch": job.batch,
        "name": job.spec.name,
        "attempt": attempt,
        "state": JobState.FINISHED,
        "accepted": True,
        "outcome": Outcome.SUCCEEDED,
        "worker": "here",
        "tatin_version": "0",
        "repo": "https://example.com/app.git",
        "created_at": job.created_at,
        "started_at": job.created_at,
        "finished_at": job.created_at + timedelta(seconds=5),
        "agent": AgentFacts(tool="command", exit_status=0),
    }
    return Result(**{**values, **fields})


@dataclass
class Queue:
    """A real store of a home, and moves that a worker would make."""

    home: Home
    store: Store

    def submit(self, *jobs: Job) -> list[Job]:
        """As one batch; the records as they are then."""
        batch = Batch(
            id=batch_id(), created_at=datetime.now(UTC), jobs=tuple(job.id for job in jobs), source="job.yaml"
        )
        queued = [job.model_copy(update={"batch": batch.id, "created_at": batch.created_at}) for job in jobs]
        self.store.submit(batch, queued)
        return self.store.jobs(batch.jobs)

    def claim(self) -> Lease:
        """The next job in line."""
        lease = self.store.claim("here", OFFER, [], os.urandom(8).hex(), 60)
        assert lease is not None
        return lease

    def announce(self, **fields: Any) -> None:
        """A worker that says it is there."""
        values = {"name": "here", "host": "here", "pid": 1, "version": "0", "offer": OFFER, "sandbox": "bwrap"}
        self.store.announce(WorkerInfo(**{**values, "started_at": datetime.now(UTC), **fields}))

    def finish(self, lease: Lease, *, patch: bytes = b"", artifact: bytes = b"made\n", log: bytes = b"hello\n") -> Path:
        """Leave results and end the job as succeeded."""
        folder = self.home.attempt(lease.job.id, lease.attempt)
        (folder / "artifacts").mkdir(parents=True)
        (folder / "agent.log").write_bytes(log)
        (folder / "changes.patch").write_bytes(patch)
        (folder / "artifacts" / "out.txt").write_bytes(artifact)
        result = make_result(
            lease.job,
            lease.attempt,
            patch=PatchFacts(size_bytes=len(patch), files_changed=1, lines_added=1, lines_removed=0),
            artifacts=(ArtifactFacts(name="out.txt", size_bytes=len(artifact), sha256="0" * 64),),
        )
        write_result(folder, result)
        self.store.finish(lease, Outcome.SUCCEEDED, None, "", result.summary(folder))
        return folder


@contextmanager
def open_queue(home: Path) -> Iterator[Queue]:
    """The embedded store of this home, with its server kept running meanwhile."""
    settings = load_settings({"TATIN_HOME": str(home)})
    with open_store(settings, Home(home)) as store:
        yield Queue(Home(home), store)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    def json(self) -> Any:
        """stdout as the one JSON object that it is."""
        return json.loads(self.out)


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of a command on this home: nothing of the tester's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TATIN_")}
    return {**kept, "TATIN_HOME": str(home), "PYTHONPATH": str(ROOT), "TZ": "UTC", **(more or {})}


def argv(*arguments: str) -> list[str]:
    """The command line of ``tatin`` with these arguments."""
    return [sys.executable, "-P", "-m", "tatin_jobs.cli", *arguments]  # as the script: nothing from the working folder


def on_terminal(home: Path, *arguments: str, **env: str) -> bytes:
    """What a command prints to a terminal."""
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        argv(*arguments), cwd=home, env=environment(home, {"TERM": "xterm-256color", **env}), stdout=inner, stderr=inner
    )
    os.close(inner)
    seen = b""
    try:
        while data := os.read(terminal, 65_536):
            seen += data
    except OSError:
        pass  # Linux says so at the end
    os.close(terminal)
    process.wait(30)
    return seen


def tatin(home: Path, *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **env: str) -> Done:
    """Run one command to its end."""
    done = subprocess.run(
        argv(*arguments),
        cwd=cwd or home,
        env=environment(home, env),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())
