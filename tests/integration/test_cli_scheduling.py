"""Holds of a label, of the queue and of an account; what `list` says of them; needs and names through the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.models import Model, Need
from tatin_jobs.states import HeldFor, JobState
from tests.support.attempts import make_repository
from tests.support.cli import Queue, make_job, open_queue, tatin

pytestmark = pytest.mark.needs("valkey")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def queue(home: Path) -> Iterator[Queue]:
    with open_queue(home) as queue:
        yield queue


def test_a_label_is_held_and_released(home: Path, queue: Queue) -> None:
    infra, other = queue.submit(make_job("a", labels={"team": "infra"}), make_job("b", labels={"team": "web"}))
    assert tatin(home, "hold", "--label", "team=infra").code == 0
    assert queue.store.job(infra.id).held_for is HeldFor.PERSON
    assert queue.store.job(other.id).state is JobState.QUEUED
    assert tatin(home, "release", "--label", "team=infra").code == 0
    assert queue.store.job(infra.id).state is JobState.QUEUED
    wrong = [("hold", "--label", "team=none"), ("hold", "--label", "team"), ("hold",), ("hold", infra.id, "--queue")]
    assert {tatin(home, *command).code for command in wrong} == {2}


def test_the_whole_queue_is_held_and_released(home: Path, queue: Queue) -> None:
    [job] = queue.submit(make_job("a"))
    assert "held" in tatin(home, "hold", "--queue").err
    listed = tatin(home, "list")
    assert "queue is held" in listed.text
    assert queue.store.job(job.id).state is JobState.HELD
    refused = tatin(home, "release", job.id)
    assert refused.code == 2
    assert "tatin release --queue" in refused.err
    assert tatin(home, "release", "--queue").code == 0
    assert queue.store.job(job.id).state is JobState.QUEUED


def test_an_account_at_its_limit_is_shown_and_opened(home: Path, queue: Queue) -> None:
    """F49."""
    model = Model(name="m", provider="p")
    queue.submit(*(make_job(name, account="max-1", model=model) for name in ("a", "b")))
    lease = queue.claim()
    queue.store.meet_limit(lease, delay_seconds=3600, message="Account 'max-1' is at its limit.")
    queue.store.requeue(lease, message="", delay_seconds=0, counted=False)
    found = tatin(home, "list", "--json").json()
    assert found["counts"]["held"] == 2
    assert [(gate["kind"], gate["name"]) for gate in found["held"]] == [("account", "max-1")]
    assert "at its limit" in tatin(home, "list").text
    assert "held until" in tatin(home, "report").text
    assert tatin(home, "wait", lease.job.id, "--timeout", "1s").code == 75
    assert tatin(home, "release", "--account", "nobody").code == 2
    assert tatin(home, "release", "--account", "max-1").code == 0
    assert queue.store.job(lease.job.id).state is JobState.QUEUED


def test_list_names_what_no_worker_can_take(home: Path, queue: Queue) -> None:
    """F46."""
    [job] = queue.submit(make_job("huge", need=Need(cpus=999, memory_mib=1, disk_mib=1)))
    queue.announce()
    assert f"{job.id}: no worker that runs now can take it" in tatin(home, "list").text
    assert "999" in tatin(home, "list", "--json").json()["jobs"][0]["never"]


@pytest.mark.needs("git")
def test_needs_name_jobs_of_the_same_submit(home: Path, queue: Queue, tmp_path: Path) -> None:
    make_repository(tmp_path / "repo")
    text = "name: {name}\nrepo: {repo}\ncommand: 'true'\n{more}"
    files = {"build": "", "check": "needs: [build]\ndeadline: 07:00\n"}
    body = "---\n".join(text.format(name=name, repo=tmp_path / "repo", more=more) for name, more in files.items())
    (tmp_path / "jobs.yaml").write_text(body)
    done = tatin(home, "submit", str(tmp_path / "jobs.yaml"))
    assert done.code == 0, done.err
    build, check = done.text.split()
    job = queue.store.job(check)
    assert (job.held_for, job.needs) == (HeldFor.NEEDS, (build,))
    assert job.spec.deadline is not None
    assert f"held: needs {build}" in tatin(home, "list").text
    (tmp_path / "circle.yaml").write_text(body.replace("command: 'true'\n---", "command: 'true'\nneeds: [check]\n---"))
    circle = tatin(home, "submit", str(tmp_path / "circle.yaml"))
    assert circle.code == 2
    assert "circle" in circle.err


@pytest.mark.needs("bwrap")
def test_a_second_worker_of_another_home_under_one_name_is_refused(home: Path, queue: Queue) -> None:
    """F09: it would have the capacity and the nonce of the first."""
    queue.store.enroll("same", "aaaaaaaa")
    queue.announce(name="same")
    done = tatin(home, "worker", "--name", "same", "--sandbox", "bwrap")
    assert done.code == 2
    assert "Another worker is called 'same'" in done.err
