"""What an attempt notes for the worker that may come after this one."""

from __future__ import annotations

from datetime import UTC, datetime

from tatin_jobs.models import Job, JobSpec, Lease, Need, Repo
from tatin_jobs.results import AgentFacts
from tatin_jobs.states import JobState
from worker.collect import Snapshot
from worker.facts import Facts


def facts(snapshot: Snapshot) -> Facts:
    spec = JobSpec(name="x", repo=Repo(path="/x"), tool="command", command="true")
    need = Need(cpus=1, memory_mib=1, disk_mib=1)
    job = Job(id="x-1", batch="b", spec=spec, need=need, state=JobState.RUNNING, created_at=datetime.now(UTC))
    return Facts(Lease(job=job, attempt=1, token="t"), AgentFacts(tool="command", model=None), snapshot=snapshot)


def test_a_snapshot_is_noted_when_the_guest_has_its_patch() -> None:
    snapshot = Snapshot(files_changed=1, patch_bytes=5)
    assert facts(snapshot).going(0, None, (), None).snapshot == snapshot


def test_a_snapshot_whose_patch_this_worker_alone_has_is_taken_again() -> None:
    assert facts(Snapshot(files_changed=1, patch_bytes=5, patch=b"patch")).going(0, None, (), None).snapshot is None
