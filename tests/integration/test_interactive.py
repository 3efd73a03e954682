"""A person's commands whose terminal is closed, or that are asked to end: they leave no machine running."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tatin_jobs.errors import EXIT_CANCELLED
from tatin_jobs.home import Home
from tatin_jobs.models import Need
from tests.support.cli import environment, make_job, open_queue
from tests.support.wait import has_ended
from worker.kept import KeptNotes, note_of_job
from worker.sandboxes.names import sandbox_name

NEED = Need(cpus=1, memory_mib=256, disk_mib=100)
SSH = """\
#!/bin/sh
trap '' HUP INT TERM
echo $$
until [ -e "$TATIN_HOME/leave" ]; do sleep 0.05; done
"""
"""An ssh that does not end when it is asked to."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    return made


@contextmanager
def begun(home: Home, *arguments: str, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    path = f"{home.root.parent}:/usr/bin:/bin"
    env = environment(home.root, {"PATH": path, "TATIN_CPUS": "2", "TATIN_MEMORY": "2048"})
    argv = [*before, sys.executable, "-m", "tests.support.noted_machines", *arguments]
    with subprocess.Popen(argv, env=env, cwd=home.root, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            (home.root / "leave").touch()  # else an ssh that it has left goes on
            process.kill()


@contextmanager
def attached(home: Home, *before: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``tatin attach`` in the machine that a job has kept, and the pid of its ssh."""
    with open_queue(home.root) as queue:
        (job,) = queue.submit(make_job())
        sandbox = sandbox_name(home.id(), job.id, 1)
        (home.sandboxes / sandbox).mkdir()
        KeptNotes(home.kept).add(note_of_job(sandbox, "qemu", job.id, NEED))
        with begun(home, "attach", job.id, before=before) as process:
            assert line(process) == "start"
            yield process, int(line(process))


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.needs("valkey")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_kept_machine_is_stopped_again_whatever_ends_attach(home: Home, number: signal.Signals) -> None:
    """F04: also when its ssh does not end, and when a shell says twice that the terminal is closed."""
    with attached(home) as (process, ssh):
        process.send_signal(number)
        assert line(process) == "stop"
        assert has_ended(ssh)
        process.send_signal(signal.SIGHUP)
        (home.root / "go").touch()
        assert (line(process), line(process)) == ("stopped", "")
        assert process.wait() == EXIT_CANCELLED


@pytest.mark.needs("valkey")
def test_nohup_keeps_attach_going(home: Home) -> None:
    (home.root / "go").touch()
    with attached(home, "nohup") as (process, _):
        process.send_signal(signal.SIGHUP)
        (home.root / "leave").touch()
        assert (line(process), line(process)) == ("stop", "stopped")
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_up_that_is_ended_leaves_no_half_made_machine(home: Home, number: signal.Signals) -> None:
    """F04: and no note, which would keep it from every sweep."""
    with begun(home, "up") as process:
        assert line(process) == "create"
        process.send_signal(number)
        assert (line(process), line(process)) == ("destroy", "")
        assert process.wait() == EXIT_CANCELLED
    assert KeptNotes(home.kept).all() == []
