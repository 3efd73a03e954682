"""``tatin run`` interrupted: by Ctrl-C, and by the end of the worker that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tatin_jobs.cli.live_view import LiveView
from tatin_jobs.cli.output import console
from tatin_jobs.models import Job
from tatin_jobs.states import JobState, Outcome, Step
from tests.integration.test_cli_submit import queue, repo
from tests.support.cli import Queue, argv, environment, make_job
from tests.support.wait import until

__all__ = ["queue", "repo"]  # fixtures

pytestmark = [pytest.mark.needs("valkey"), pytest.mark.needs("bwrap"), pytest.mark.needs("git")]

JOB = """\
name: slow
repo: {repo}
tool: command
prompt: x
resources: {{cpus: 1, memory: 256MiB, disk: 200MB}}
command: echo begun > begun.txt; echo begun; sleep 600
"""


@pytest.fixture
def running(queue: Queue, repo: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``tatin run`` whose agent has begun."""
    path = tmp_path / "slow.yaml"
    path.write_text(JOB.format(repo=repo))
    env = environment(queue.home.root)
    process = subprocess.Popen(
        argv("run", str(path)), cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    while b"begun" not in (line := process.stdout.readline()):
        assert line, process.stderr.read() if process.stderr else ""
    yield process
    process.kill()
    process.communicate()


def test_the_steps_until_now_are_shown_before_what_the_job_printed(queue: Queue) -> None:
    shown: list[str] = []

    class Watched(LiveView):
        def line(self, job: Job, text: str, style: str = "") -> None:
            shown.append(text)

    queue.submit(make_job("quick"))
    lease = queue.claim()
    view = Watched(queue.store, [lease.job], console())
    view.update(queue.store.job(lease.job.id))
    queue.store.set_step(lease, Step.AGENT)  # nobody has told the view of this
    queue.store.write_log(lease, [("stdout", b"printed\n")])
    until(lambda: "printed" in shown, what="a line of the log")
    view.close()
    assert [text.partition(" on ")[0] for text in shown] == ["● attempt 1", "● agent", "printed"]


def worker_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # it ends just now
            if "worker" in child.cmdline():
                return child
    raise AssertionError("the command has no worker")


def test_ctrl_c_cancels_and_brings_back_what_there_is(
    queue: Queue, running: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    worker = worker_of(running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=90)
    assert running.returncode == 130, err
    (job,) = queue.store.list_jobs()
    assert job.outcome is Outcome.CANCELLED
    assert "cancelling" in err.decode()
    assert "begun.txt  +1 -0" in out.decode()
    assert b"+begun" in (tmp_path / "work" / job.id / "changes.patch").read_bytes()
    assert not worker.is_running()
    assert [name for name in os.listdir(queue.home.sandboxes) if not name.startswith(".")] == []


def test_a_second_ctrl_c_hurries(queue: Queue, running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGINT)
    until(lambda: queue.store.list_jobs()[0].cancel_wanted, what="the cancel")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=90)
    assert running.returncode == 130, err
    assert queue.store.list_jobs()[0].outcome is Outcome.CANCELLED


def test_a_worker_that_dies_is_told_of_and_the_job_stays(queue: Queue, running: subprocess.Popen[bytes]) -> None:
    worker_of(running).kill()
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "the worker was killed by signal 9" in err.decode()
    assert "`tatin worker` goes on with them" in err.decode()
    assert queue.store.list_jobs()[0].state is JobState.RUNNING
