"""A job's machine that stays: entered by `tatin attach`, counted by the worker, gone when its time is over."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import Need
from tatin_jobs.states import Outcome
from tests.vms.benches import NEED, vm_bench
from worker.journal import Entry
from worker.kept import KEPT_FOR, KeptNotes, taken_by_kept
from worker.sandboxes.qemu import process
from worker.sweep import sweep

pytestmark = [pytest.mark.needs("git", "valkey"), pytest.mark.timeout(900)]


async def test_a_failed_jobs_machine_stays_is_entered_and_goes_when_its_time_is_over(
    vm_homes: tuple[Home, Home], tmp_path: Path
) -> None:
    with vm_bench(tmp_path, vm_homes[1]) as made:
        home = made.home
        job, _ = await made.run(command="echo half > half.txt; exit 3", keep="on-failure", timeout_seconds=300)
        assert job.outcome is Outcome.FAILED
        (kept,) = KeptNotes(home.kept).all()
        assert (kept.job, kept.need, kept.until) == (job.id, made.need, kept.made_at + KEPT_FOR)
        assert process.unnoted(kept.sandbox) == []
        assert (made.context.lingering.needs(), os.listdir(home.journal)) == ([], [])
        (asleep,) = taken_by_kept(home)
        assert (asleep.memory_mib, asleep.disk_mib) == (0, NEED.disk_mib)

        env = {**os.environ, "TATIN_HOME": str(home.root), "TATIN_SANDBOX": "qemu"}
        inside = "cat work/repo/half.txt; read line; echo $line"
        argv = [sys.executable, "-m", "tatin_jobs.cli", "attach", job.id, "sh", "-c", inside]
        pipe = asyncio.subprocess.PIPE
        whole = Need(memory_mib=2**30, memory_wish=True)
        made.context.journal.write(Entry(sandbox="tatin-0a1b2c3d-x-1", job="x", attempt=1, token="t", need=whole))
        attached = await asyncio.create_subprocess_exec(*argv, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        assert attached.stdin is not None
        assert attached.stdout is not None
        assert await attached.stdout.readline() == b"half\n"
        (awake,) = taken_by_kept(home)
        assert (awake.cpus, awake.memory_mib) == (NEED.cpus, NEED.memory_mib)
        assert await sweep(made.context, set) == ""
        out, err = await attached.communicate(b"bye\n")
        assert out == b"bye\n"
        assert b"The worker takes no job while there is no room." in err, "another job has all the memory"
        made.context.journal.remove("tatin-0a1b2c3d-x-1")
        assert attached.returncode == 0
        assert taken_by_kept(home) == [asleep], "it is stopped again"

        KeptNotes(home.kept).add(kept.model_copy(update={"until": datetime.now(UTC)}))
        assert await sweep(made.context, set) == ""
        assert (os.listdir(home.sandboxes), KeptNotes(home.kept).all(), taken_by_kept(home)) == ([], [], [])
        assert process.unnoted(kept.sandbox) == []
