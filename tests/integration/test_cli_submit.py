"""``tatin submit`` and what ``tatin run`` refuses, from job files on the disk to records in a real store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.settings import load_settings
from tatin_jobs.states import JobState
from tests.support.cli import Queue, open_queue, tatin
from worker.main import home_lock

pytestmark = [pytest.mark.needs("valkey"), pytest.mark.needs("git")]

JOB = """\
version: 1
name: {name}
repo: {repo}
tool: command
command: "true"
prompt: Do it
"""


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with open_queue(tmp_path / "home") as queue:
        yield queue


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    git = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / "README.md").write_text("# App\n")
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=first"], check=True)
    return folder


def job_file(folder: Path, repo: Path, *names: str, more: str = "") -> Path:
    path = folder / f"{names[0]}.yaml"
    path.write_text("---\n".join(JOB.format(name=name, repo=repo) + more for name in names))
    return path


def blobs(queue: Queue) -> list[str]:
    return [path.name for path in queue.home.blobs.iterdir() if not path.name.startswith(".")]


def test_a_submit_prints_one_id_a_line_and_the_rest_to_stderr(queue: Queue, repo: Path, tmp_path: Path) -> None:
    (repo / "untracked.txt").touch()
    done = tatin(queue.home.root, "submit", str(job_file(tmp_path, repo, "one", "two")))
    assert done.code == 0, done.err
    jobs = queue.store.jobs(done.text.split())
    assert [job.spec.name for job in jobs] == ["one", "two"]
    assert {job.state for job in jobs} == {JobState.QUEUED}
    assert jobs[0].batch == jobs[1].batch
    assert "no worker is running; start `tatin worker`" in done.err
    assert "untracked.txt" in done.err


def test_stdin_is_a_job_file_and_fields_can_be_set(queue: Queue, repo: Path) -> None:
    text = JOB.format(name="piped", repo=repo).encode()
    done = tatin(queue.home.root, "submit", "-", "--set", "priority=7", "--json", stdin=text)
    assert done.code == 0, done.err
    (told,) = done.json()["jobs"]
    assert queue.store.job(told["id"]).spec.priority == 7


def test_a_dry_run_stores_nothing(queue: Queue, repo: Path, tmp_path: Path) -> None:
    path = str(job_file(tmp_path, repo, "dry"))
    shown = tatin(queue.home.root, "submit", path, "--dry-run")
    assert shown.code == 0, shown.err
    assert "name: dry" in shown.text
    spec = tatin(queue.home.root, "submit", path, "--dry-run", "--json").json()["jobs"][0]["spec"]
    assert spec["prompt"] == "Do it"
    assert queue.store.list_jobs() == []
    assert blobs(queue) == []


def test_one_bad_file_among_good_ones_submits_nothing(queue: Queue, repo: Path, tmp_path: Path) -> None:
    good = str(job_file(tmp_path, repo, "good"))
    bad = str(job_file(tmp_path, repo, "bad", more="promt: x\ntimeout: 3 parsecs\n"))
    done = tatin(queue.home.root, "submit", good, bad, "--json")
    assert done.code == 2
    assert done.out == b""
    fields = {complaint["field"] for complaint in json.loads(done.err)["error"]["complaints"]}
    assert fields == {"promt", "timeout"}
    assert queue.store.list_jobs() == []
    assert blobs(queue) == []


def test_a_submit_tells_how_many_run_at_once_and_what_never_will(queue: Queue, repo: Path, tmp_path: Path) -> None:
    queue.announce()
    fits = job_file(tmp_path, repo, "fits", more="resources: {cpus: 2, memory: 1GiB, disk: 1GB}\n")
    assert "2 of these run at once here" in tatin(queue.home.root, "submit", str(fits)).err
    queue.announce(problem="the disk is full")
    assert "worker 'here' takes nothing: the disk is full" in tatin(queue.home.root, "submit", str(fits)).err
    large = job_file(tmp_path, repo, "large", more="resources: {memory: 64GiB}\n")
    done = tatin(queue.home.root, "submit", str(large))
    assert done.code == 0
    assert "offers 4096 MiB of memory of 65536" in done.err


def test_a_job_file_in_its_own_repository_is_not_told_to_be_uncommitted(queue: Queue, repo: Path) -> None:
    """At nobody's first run; what else is not committed is."""
    path = job_file(repo, repo, "first")
    assert "uncommitted" not in tatin(queue.home.root, "submit", str(path), cwd=repo).err
    (repo / "new.py").touch()
    assert "so not in the job: new.py\n" in tatin(queue.home.root, "submit", str(path), cwd=repo).err


@pytest.mark.needs("bwrap")
def test_run_submits_nothing_that_this_host_can_never_run(queue: Queue, repo: Path, tmp_path: Path) -> None:
    path = job_file(tmp_path, repo, "huge", more="resources: {cpus: 512}\n")
    done = tatin(queue.home.root, "run", str(path))
    assert done.code == 3
    assert "can never run on this host" in done.err
    assert queue.store.list_jobs() == []
    assert blobs(queue) == []


@pytest.mark.needs("bwrap")
def test_run_submits_nothing_for_a_model_server_that_does_not_run(
    queue: Queue, repo: Path, tmp_path: Path, unused_tcp_port: int
) -> None:
    queue.home.settings_file.write_text(f'[models.mine]\nbase_url = "http://127.0.0.1:{unused_tcp_port}"\n')
    path = job_file(tmp_path, repo, "quiet", more="model: {provider: mine, name: m}\nresources: {memory: 256MiB}\n")
    done = tatin(queue.home.root, "run", str(path))
    assert done.code == 3
    assert f"at http://127.0.0.1:{unused_tcp_port} does not run" in done.err
    assert "Connection refused" in done.err
    assert queue.store.list_jobs() == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("resources: {memory: 64GiB}\n", "would wait for ever|offers 4096 MiB of memory of 65536"),
        ("sandbox: qemu\n", "would wait for ever|has not sandbox:qemu"),
        ("model: {provider: nowhere, name: m}\n", "nowhere"),
    ],
    ids=["memory", "sandbox", "model server"],
)
def test_run_beside_a_worker_submits_nothing_that_no_worker_can_take(
    queue: Queue, repo: Path, tmp_path: Path, more: str, words: str
) -> None:
    """Else it would follow the job for ever, or until it has failed for what is known now."""
    queue.announce(name=load_settings({}).worker_name)
    path = job_file(tmp_path, repo, "large", more=more)
    with home_lock(queue.home):
        done = tatin(queue.home.root, "run", str(path))
    assert done.code == 3
    for text in words.split("|"):
        assert text in done.err
    assert queue.store.list_jobs() == []
    assert blobs(queue) == []


@pytest.mark.needs("bwrap")
def test_run_on_a_full_disk_says_so_and_submits_nothing(queue: Queue, repo: Path, tmp_path: Path) -> None:
    done = tatin(queue.home.root, "run", str(job_file(tmp_path, repo, "one")), TATIN_DISK_FLOOR="999999999")
    assert done.code == 3
    assert "below the floor of" in done.err
    assert "tatin prune" in done.err
    assert queue.store.list_jobs() == []


def test_run_without_a_sandbox_submits_nothing(queue: Queue, repo: Path, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = tatin(queue.home.root, "run", str(job_file(tmp_path, repo, "one")), PATH=str(empty))
    assert done.code == 3
    assert "has no sandbox" in done.err
    assert queue.store.list_jobs() == []


@pytest.mark.needs("bwrap")
def test_run_takes_a_job_from_its_file_to_its_results(queue: Queue, repo: Path, tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(
        f"name: whole\nrepo: {repo}\ntool: command\nprompt: x\nresources: {{cpus: 1, memory: 256MiB, disk: 200MB}}\n"
        "command: echo said; echo new > new.txt\n"
    )
    here = tmp_path / "worker"  # a project's own package of this name is not taken for ours
    here.mkdir()
    (here / "__init__.py").write_text("raise SystemExit('not ours')\n")
    done = tatin(queue.home.root, "run", str(path), cwd=tmp_path)
    assert done.code == 0, done.err
    (job,) = queue.store.list_jobs()
    assert "│ said" in done.text
    assert "new.txt  +1 -0" in done.text
    assert b"+new" in (tmp_path / "work" / job.id / "changes.patch").read_bytes()
