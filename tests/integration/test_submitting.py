"""One submit, whole or not at all; and what prune may remove. On a real embedded store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import BadInput, BadJobFile, Complaint
from tatin_jobs.models import Need
from tatin_jobs.pruning import blobs_kept, prune
from tatin_jobs.settings import Settings, load_settings
from tatin_jobs.states import JobState
from tatin_jobs.submitting import TRAVELLING_LIMIT_BYTES, JobFiles, Submitted, at_once_range, submit_files, why_never
from tests.support.cli import OFFER, Queue, make_job, open_queue

pytestmark = pytest.mark.needs("valkey")
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@dataclass(frozen=True)
class Read:
    """As ``tatin_jobs.spec.ReadJob``."""

    spec: Any
    need: Need = Need(cpus=1, memory_mib=256, disk_mib=100)  # noqa: RUF009  it is frozen
    source: str = "a.yaml"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files(JobFiles):
    """Job files that were read already; each blob is written as reading would."""

    jobs: Sequence[Read] = ()
    blobs: Sequence[bytes] = ()
    fails: BaseException | None = field(default=None)

    def read(self, settings: Settings, blobs: Blobs, now: datetime) -> list[Any]:
        for data in self.blobs:
            blobs.add_bytes(data)
        if self.fails:
            raise self.fails
        return list(self.jobs)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with open_queue(tmp_path / "home") as queue:
        yield queue


def submit(queue: Queue, files: Files, **environ: str) -> Submitted:
    settings = load_settings({"TATIN_HOME": str(queue.home.root), **environ})
    return submit_files(queue.store, settings, queue.home, files, NOW)


def read(name: str = "fix", **fields: Any) -> Read:
    return Read(make_job(name, **fields).spec)


def blobs(queue: Queue) -> list[str]:
    return sorted(path.name for path in queue.home.blobs.iterdir() if not path.name.startswith("."))


def test_all_jobs_of_one_submit_are_a_batch_in_their_order(queue: Queue) -> None:
    submitted = submit(queue, Files(["a.yaml"], jobs=[read("one"), read("two")]))
    stored = queue.store.jobs(submitted.batch.jobs)
    assert [job.spec.name for job in stored] == ["one", "two"]
    assert {job.batch for job in stored} == {submitted.batch.id}
    assert queue.store.batch(submitted.batch.id).source == "a.yaml"


def test_a_time_to_come_holds_the_job_until_then_and_a_past_one_does_not(queue: Queue) -> None:
    later, past = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
    submitted = submit(queue, Files([], jobs=[read("later", not_before=later), read("past", not_before=past)]))
    held, queued = queue.store.jobs(submitted.batch.jobs)
    assert (held.state, held.held_until) == (JobState.HELD, later)
    assert queued.state is JobState.QUEUED


def test_a_submit_that_fails_leaves_neither_record_nor_blob(queue: Queue) -> None:
    kept = Blobs(queue.home.blobs).add_bytes(b"of somebody else")
    wrong = BadJobFile([Complaint("a.yaml", 1, "tool", "is wrong.")])
    for fails in (wrong, KeyboardInterrupt()):
        with pytest.raises(type(fails)):
            submit(queue, Files([], blobs=[b"new", b"of somebody else"], fails=fails))
        assert blobs(queue) == [kept]
    assert queue.store.list_jobs() == []
    assert queue.store.batches() == []


def test_a_check_that_refuses_leaves_nothing(queue: Queue) -> None:
    def refuse(_: object) -> None:
        raise BadInput("No.")

    settings = load_settings({"TATIN_HOME": str(queue.home.root)})
    with pytest.raises(BadInput, match="No"):
        submit_files(queue.store, settings, queue.home, Files([], jobs=[read()], blobs=[b"x"]), NOW, check=refuse)
    assert blobs(queue) == []
    assert queue.store.list_jobs() == []


def test_what_cannot_travel_is_refused_where_the_store_is_shared(queue: Queue) -> None:
    data = b"x" * (TRAVELLING_LIMIT_BYTES + 1)
    big, small = (Blobs(queue.home.blobs).add_bytes(part) for part in (data, b"small"))
    with pytest.raises(BadInput, match="is the most"):
        submit(queue, Files([], jobs=[read(prompt_blob=big)]), TATIN_REDIS_URL="redis://example.invalid")
    submitted = submit(queue, Files([], jobs=[read(prompt_blob=small)]), TATIN_REDIS_URL="redis://example.invalid")
    assert "stay on this host" in submitted.warnings[0]
    assert submit(queue, Files([], jobs=[read(prompt_blob=big)])).warnings == ()


def test_how_many_run_at_once_and_why_one_never_will(queue: Queue) -> None:
    queue.announce()
    workers = queue.store.workers()
    small, large = Need(cpus=1, memory_mib=1024, disk_mib=100), Need(cpus=2, memory_mib=1024, disk_mib=100)
    assert at_once_range([small, small, large], workers) == (2, 4)
    assert why_never(small, workers) is None
    assert why_never(small, []) is None
    assert "has not xcode" in str(why_never(small.model_copy(update={"tags": ("xcode",)}), workers))
    assert "offers 4096 MiB of memory of 8192" in str(why_never(Need(cpus=1, disk_mib=1), workers))
    wish = Need(cpus=64, memory_mib=99_999, disk_mib=100, cpus_wish=True, memory_wish=True)
    assert why_never(wish, workers) is None
    assert OFFER.cpus == 4


def test_prune_keeps_blobs_while_a_record_cannot_be_read(queue: Queue) -> None:
    blob = Blobs(queue.home.blobs).add_bytes(b"named by a record of a newer Tatin")
    submitted = submit(queue, Files([], jobs=[read(prompt_blob=blob)]))
    queue.store._client.hset(f"tatin:job:{submitted.jobs[0].id}", "spec", '{"newer": 1}')
    assert queue.store.list_jobs() == []
    prune(queue.store, queue.home, before=datetime.now(UTC), dry_run=False)
    assert blobs(queue) == [blob]


def test_prune_never_touches_results_of_a_job_that_is_not_over(queue: Queue) -> None:
    queue.submit(make_job())
    lease = queue.claim()
    queue.home.attempt(lease.job.id, 1).mkdir(parents=True)
    pruned = prune(queue.store, queue.home, before=datetime.now(UTC) + timedelta(days=1), dry_run=False)
    assert pruned.folders == ()
    assert queue.home.attempt(lease.job.id, 1).exists()


def test_prune_removes_old_results_that_no_record_is_left_of(queue: Queue) -> None:
    queue.submit(make_job())
    folder = queue.finish(queue.claim())
    queue.store.forget([folder.parent.name])
    prune(queue.store, queue.home, before=datetime.now(UTC) - timedelta(days=30 * 365), dry_run=False)
    assert folder.exists()
    prune(queue.store, queue.home, before=datetime.now(UTC) + timedelta(days=1), dry_run=False)
    assert not folder.parent.exists()


@pytest.mark.parametrize(("known", "begun"), [(True, True), (False, True), (False, False)])
def test_prune_removes_the_rest_of_what_a_killed_one_had_begun_to_remove(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, known: bool, begun: bool
) -> None:
    """F01: without its result nothing says how old it is, and no record may be left of its job."""
    queue.submit(make_job())
    folder = queue.finish(queue.claim())
    later = datetime.now(UTC) + timedelta(days=1)
    if not known:
        queue.store.forget([folder.parent.name])

    def killed(path: Path) -> None:
        if begun:
            (path / folder.name / "result.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(queue.store, queue.home, before=later, dry_run=False)
    assert len(queue.store.list_jobs()) == known, "its record goes last"
    pruned = prune(queue.store, queue.home, before=later, dry_run=False)
    assert len(pruned.folders) == 1
    assert list(queue.home.jobs.iterdir()) == []
    assert queue.store.list_jobs() == []


def test_prune_removes_what_a_killed_submit_had_half_written(queue: Queue) -> None:
    """F01: a draft of a blob, and the folder in which a repository was packed; not while another submits."""
    draft, folder = queue.home.blobs / ".new-1-abc", queue.home.blobs / ".new-repo-abc"
    draft.write_bytes(bytes(100))
    (folder / "bare").mkdir(parents=True)
    (folder / "bare" / "pack").write_bytes(bytes(1000))
    found = prune(queue.store, queue.home, before=NOW, dry_run=True)
    assert (found.blobs, found.size_bytes) == ((draft, folder), 1100)
    assert draft.exists()
    with ThreadPoolExecutor(1) as other:
        with blobs_kept(queue.home):
            pruning = other.submit(prune, queue.store, queue.home, before=NOW, dry_run=False)
            time.sleep(0.2)
            assert not pruning.done()
            assert folder.exists()
        assert pruning.result().blobs == (draft, folder)
    assert not draft.exists()
    assert not folder.exists()
