"""A60-A67: a guest that takes more than its share, of whatever, ends itself and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tatin_jobs.states import Outcome, Reason
from tests.attacks.conftest import ProviderOf
from tests.support.attempts import Bench, bench
from worker import followed
from worker.sandboxes import disk_use
from worker.sandboxes.bwrap import limits
from worker.sandboxes.disk_use import DiskUse

pytestmark = pytest.mark.needs("git", "valkey")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider_of: ProviderOf) -> Iterator[Bench]:
    monkeypatch.setattr(limits, "DISK_SECONDS", 0.2)
    with bench(tmp_path, provider_of, log_limit_mib=2) as bench_made:
        yield bench_made


async def test_a60_a_fork_bomb_ends_with_its_guest(made: Bench) -> None:
    """A60: bounded in number, and gone with the agent: what it left is brought back by a guest that can work again."""
    bomb = "import os, time\nfor _ in range(5000):\n  try:\n    os.fork() or time.sleep(300)\n  except OSError: pass"
    script = f"echo mine > work.txt; python3 -c '{bomb}' & sleep 5"
    job, result = await made.run(command=script, timeout_seconds=60)
    assert result.sandbox
    if (
        result.sandbox.kind == "bwrap" and limits.method() == "watcher"
    ):  # which kills what it finds: the largest, or all of them
        assert {"memory", "processes"} & set(result.limits_hit), job.message
    else:
        assert job.outcome in (Outcome.SUCCEEDED, Outcome.TIMED_OUT), job.message
    assert "+mine" in (made.job_folder(job) / "changes.patch").read_text()


async def test_a61_a_guest_that_fills_its_disk_is_stopped_and_its_work_kept(made: Bench) -> None:
    """A61: many files, each within the limit of one."""
    script = "echo mine > work.txt; while true; do head -c 30M /dev/zero > ../fill.$((n+=1)); done"
    job, result = await made.run(command=script, timeout_seconds=120, artifacts=())
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.DISK), job.message
    assert "used up its 100 MiB of disk" in job.message
    assert result.limits_hit == ("disk",)
    assert "+mine" in (made.job_folder(job) / "changes.patch").read_text()


async def test_a61_a_guest_that_fills_its_disk_loses_nothing_but_its_room(made: Bench) -> None:
    """A61: wherever that is noticed, by a watcher or by the guest's own file system."""
    script = "echo mine > work.txt; while head -c 10M /dev/zero > ../fill.$((n+=1)); do :; done; exit 3"
    job, result = await made.run(command=script, timeout_seconds=300, artifacts=())
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.DISK), job.message
    assert result.limits_hit == ("disk",)
    assert "+mine" in (made.job_folder(job) / "changes.patch").read_text()


async def test_a61_no_single_file_is_larger_than_the_disk(made: Bench) -> None:
    """A61: the kernel holds a file to it, at once and not when a watcher comes round."""
    job, _ = await made.run(
        command="head -c 300M /dev/zero > ../one 2>/dev/null; stat -c %s ../one; echo ended", artifacts=()
    )
    log = (made.job_folder(job) / "agent.log").read_text().split()
    assert 0 < int(log[0]) <= 100 * 2**20


async def test_a66_a_guest_that_makes_files_without_end_is_stopped(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A61, A66: empty files take no blocks, but places."""
    monkeypatch.setattr(limits, "MAX_FILES", 2_000)
    script = "mkdir ../many; cd ../many; while true; do touch $((n+=1)) $((n+=1)) $((n+=1)) $((n+=1)); done"
    job, result = await made.run(command=script, timeout_seconds=120, artifacts=())
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.DISK), job.message
    assert result.limits_hit == ("files",)


def test_a61_what_the_guest_does_meanwhile_does_not_lead_the_watcher_out(tmp_path: Path) -> None:
    """A61: links are not followed, depth is bounded, what cannot be read is not waited for."""
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest" / "file").write_bytes(b"x" * 10_000)
    (tmp_path / "guest" / "out").symlink_to("/usr")
    (tmp_path / "guest" / "loop").symlink_to(tmp_path / "guest")
    most = DiskUse(2**40, 10**6)
    use = disk_use.disk_use([str(tmp_path / "guest"), str(tmp_path / "gone")], most)
    assert use.files == 3
    assert 10_000 <= use.size_bytes < 50_000
    deep = tmp_path / "deep"
    for _ in range(disk_use.MAX_DEPTH + 3):
        deep /= "d"
    deep.mkdir(parents=True)
    assert disk_use.disk_use([str(tmp_path / "deep")], most).too_deep


async def test_a62_a_flood_of_output_is_cut_and_said_to_be(made: Bench) -> None:
    """A62: in the file, in the store and in the result; a line without end among it."""
    script = "head -c 20M /dev/zero | tr '\\0' x; yes flood | head -c 20M; echo ended >&2"
    job, result = await made.run(command=script)
    assert job.outcome is Outcome.SUCCEEDED, job.message
    assert "log" in result.limits_hit
    assert (made.job_folder(job) / "agent.log").stat().st_size <= 2 * 2**20 + 100
    shown = b"".join(chunk.data for chunk in made.store.read_log(job.id))
    assert len(shown) < 4 * 2**20
    assert b"is cut at 2 MiB" in shown


async def test_a64_a_guest_that_kills_all_it_can_still_ends_and_is_collected(made: Bench) -> None:
    """A64: its own watcher dies with it, where that is in its reach, and what it left is brought back all the same; of
    root too, where it is."""
    script = "echo mine > work.txt; sync; sudo -n kill -9 -1; kill -9 -1; sleep 3; exit 3"
    job, result = await made.run(command=script, timeout_seconds=60)
    assert job.outcome is Outcome.FAILED
    assert job.reason in (Reason.AGENT, Reason.SANDBOX)
    assert result.patch is not None
    assert "+mine" in (made.job_folder(job) / "changes.patch").read_text()


async def test_a65_every_time_in_the_result_is_the_hosts(made: Bench) -> None:
    """A65: where the host's kernel is the guest's too, no guest sets its clock; elsewhere it sets its own."""
    script = "sudo -n date -s 2001-01-01 2>&1 || date -s 2001-01-01 2>&1; date +%Y; sleep 1"
    before = datetime.now(UTC)
    job, result = await made.run(command=script)
    log = (made.job_folder(job) / "agent.log").read_text()
    assert result.sandbox is not None
    assert ("Operation not permitted" in log) is not result.sandbox.separate_kernel
    assert log.split()[-1] == ("2001" if result.sandbox.separate_kernel else str(before.year))
    assert before <= result.started_at <= result.finished_at <= datetime.now(UTC)
    assert result.agent.seconds is not None
    assert 0.5 < result.agent.seconds < 600


@pytest.mark.needs("bwrap")
async def test_a67_a_guest_of_the_hosts_kernel_cannot_raise_its_limits(made: Bench) -> None:
    """A67"""
    job, _ = await made.run(command="ulimit -c unlimited 2>&1; ulimit -f unlimited 2>&1; ls -A /sys/fs/cgroup 2>&1")
    log = (made.job_folder(job) / "agent.log").read_text()
    assert log.count("imit exceeded") + log.count("not permitted") >= 2, log


async def test_a67_a_guest_cannot_lengthen_its_life(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A67: in a machine the launcher is the guest's own user's and can be stopped; the worker's clock is not."""
    monkeypatch.setattr(followed, "OUTSIDE_GRACE_SECONDS", 0.5)
    script = "kill -STOP 1; kill -STOP $(cat /run/tatin/agent/watcher); sleep 300"
    job, result = await made.run(command=script, timeout_seconds=1)
    assert job.outcome is Outcome.TIMED_OUT, job.message
    assert result.agent.seconds < 200
