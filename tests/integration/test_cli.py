"""The commands as their users start them, on a real embedded store; what a worker does is done by hand."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tatin_jobs.models import Need
from tatin_jobs.results import write_result
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.cli import ROOT, Queue, argv, environment, make_job, make_result, on_terminal, open_queue, tatin

pytestmark = pytest.mark.needs("valkey")

PATCH = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-one\n+\x1b]0;title\x07two\xff\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def queue(home: Path) -> Iterator[Queue]:
    with open_queue(home) as queue:
        yield queue


def test_list_shows_each_state_with_its_place_and_counts(home: Path, queue: Queue) -> None:
    first, second, held = queue.submit(make_job("first"), make_job("second"), make_job("third"))
    queue.store.hold(held.id)
    shown = tatin(home, "list")
    assert shown.code == 0
    rows = {line.split()[1]: line for line in shown.text.splitlines()[1:-1]}
    assert "queued #1" in rows[first.id]
    assert "queued #2" in rows[second.id]
    assert rows[held.id].startswith("◐")
    assert "2 queued, 1 held, 0 running, 0 finished; no worker is running" in shown.text.splitlines()[-1]
    assert b"\x1b" not in shown.out


def test_list_shows_the_jobs_of_one_batch_in_the_order_in_which_they_run(home: Path, queue: Queue) -> None:
    """They were all submitted in the same moment."""
    queue.submit(*(make_job(f"small-{number}") for number in range(12)))
    shown = tatin(home, "list", "--json").json()["jobs"]
    assert [job["place_in_line"] for job in shown] == list(range(1, 13))


def test_a_long_line_is_shown_from_its_front(home: Path, queue: Queue) -> None:
    """Also where it is many lines: one for each need."""
    need = Need(cpus=2, memory_mib=256, disk_mib=100)
    jobs = queue.submit(*(make_job(f"j{n}", **({"need": need} if n % 2 else {})) for n in range(9)))
    ids = [job.id for job in jobs]
    (urgent,) = queue.submit(make_job("urgent", priority=5))
    queue.store.hold(ids[8])
    shown = tatin(home, "list", "--limit", "4")
    rows = [line.split()[1] for line in shown.text.splitlines()[1:5]]
    assert set(rows) == {urgent.id, *ids[:3]}
    assert "... 5 more queued, 1 more held; --limit N shows more" in shown.text
    assert " more" not in tatin(home, "list").text
    assert "... 6 more queued" in tatin(home, "list", "--limit", "2", "--batch", jobs[0].batch).text


def test_list_json_has_its_version_and_no_token(home: Path, queue: Queue) -> None:
    queue.submit(make_job("one"), make_job("two"))
    lease = queue.claim()
    shown = tatin(home, "list", "--json").json()
    assert shown["schema_version"] == 1
    assert shown["counts"] == {"queued": 1, "held": 0, "running": 1, "finished": 0}
    jobs = {job["id"]: job for job in shown["jobs"]}
    assert jobs[lease.job.id]["state"] == "running"
    assert lease.token not in json.dumps(shown)
    assert [job["place_in_line"] for job in shown["jobs"]] == [None, 1]


def test_list_can_be_narrowed(home: Path, queue: Queue) -> None:
    held, other = queue.submit(make_job("held"), make_job("other"))
    queue.store.hold(held.id)
    (later,) = queue.submit(make_job("later"))
    assert _ids(tatin(home, "list", "--state", "held", "--json").json()) == [held.id]
    assert _ids(tatin(home, "list", "--batch", later.batch, "--json").json()) == [later.id]
    assert len(_ids(tatin(home, "list", "--limit", "1", "--json").json())) == 1
    assert other.id in _ids(tatin(home, "list", "--json").json())


def test_show_tells_of_a_job_and_of_a_batch(home: Path, queue: Queue) -> None:
    job, _ = queue.submit(make_job("one", prompt="Do\nthis"), make_job("two"))
    queue.finish(queue.claim(), patch=PATCH)
    shown = tatin(home, "show", job.id[:7])
    assert "✓ " + job.id in shown.text
    assert "Do this" in shown.text
    assert "artifacts/" not in shown.text
    assert "out.txt" in shown.text
    full = tatin(home, "show", job.id, "--json").json()["job"]
    assert full["attempts"][0]["result"]["outcome"] == "succeeded"
    assert [event["move"] for event in full["events"]] == ["submit", "claim", "finish"]
    assert full["spec"]["prompt"] == "Do\nthis"
    assert job.id in tatin(home, "show", job.batch).text


def test_show_says_which_attempt_decided(home: Path, queue: Queue) -> None:
    """F01: a host whose worker died has a result that nobody accepted, and may not have learned so."""
    queue.submit(make_job("one"))
    old = queue.claim()
    folder = queue.home.attempt(old.job.id, 1)
    folder.mkdir(parents=True)
    write_result(folder, make_result(old.job, 1))
    queue.store.reap(old.job.id, queue.store.beats()[old.job.id], 5)
    queue.finish(queue.claim())
    first, second = tatin(home, "show", old.job.id).text.split("attempt 2", 1)
    assert "succeeded (did not decide the job)" in first
    assert "did not decide" not in second


def test_an_id_may_be_shortened_but_not_guessed(home: Path, queue: Queue) -> None:
    queue.submit(make_job("same"), make_job("same"))
    for arguments, words in ((("show", "same"), "More than one id"), (("cancel", "nothing"), "No job or batch")):
        shown = tatin(home, *arguments)
        assert shown.code == 2
        assert words in shown.err
        assert shown.out == b""


def test_an_error_is_one_json_shape_on_stderr(home: Path) -> None:
    for arguments in (("show", "nothing", "--json"), ("list", "--bogus", "--json"), ("nothing", "--json")):
        shown = tatin(home.parent, *arguments)
        error = json.loads(shown.err)
        assert shown.code == 2
        assert shown.out == b""
        assert error["schema_version"] == 1
        assert set(error["error"]) == {"what", "seen", "try", "exit_code"}
        assert error["error"]["exit_code"] == 2


def test_hold_release_and_cancel_move_a_job(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job())
    assert tatin(home, "hold", job.id).code == 0
    assert queue.store.job(job.id).state is JobState.HELD
    assert tatin(home, "release", job.id).code == 0
    assert queue.store.job(job.id).state is JobState.QUEUED
    assert tatin(home, "cancel", job.id).code == 0
    assert queue.store.job(job.id).outcome is Outcome.CANCELLED
    again = tatin(home, "cancel", job.id)
    assert again.code == 2
    assert "is finished" in again.err


def test_cancelling_a_batch_cancels_what_is_left_of_it(home: Path, queue: Queue) -> None:
    jobs = queue.submit(make_job("one"), make_job("two"), make_job("three"))
    queue.finish(queue.claim())
    running = queue.claim()
    assert tatin(home, "cancel", jobs[0].batch).code == 0
    after = queue.store.jobs(job.id for job in jobs)
    assert [job.outcome for job in after] == [Outcome.SUCCEEDED, None, Outcome.CANCELLED]
    assert queue.store.job(running.job.id).cancel_wanted


def test_a_wrong_id_among_good_ones_does_nothing(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job())
    assert tatin(home, "cancel", job.id, "nothing").code == 2
    assert queue.store.job(job.id).state is JobState.QUEUED


def test_retry_makes_a_new_job_that_names_the_old(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job("again", prompt="x"))
    waiting = tatin(home, "retry", job.id)
    assert waiting.code == 2
    assert "is queued" in waiting.err
    queue.store.finish(queue.claim(), Outcome.FAILED, Reason.AGENT, "It failed.")
    retried = tatin(home, "retry", job.id)
    assert retried.code == 0
    new = queue.store.job(retried.text.strip())
    assert (new.retry_of, new.spec, new.state) == (job.id, job.spec, JobState.QUEUED)
    assert new.batch != job.batch


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.SUCCEEDED, Outcome.SUCCEEDED], 0),
        ([Outcome.SUCCEEDED, Outcome.FAILED], 1),
        ([Outcome.SUCCEEDED, Outcome.TIMED_OUT], 124),
        ([Outcome.CANCELLED, Outcome.SUCCEEDED], 130),
    ],
)
def test_wait_ends_with_the_code_of_the_outcomes(home: Path, queue: Queue, outcomes: list[Outcome], code: int) -> None:
    jobs = queue.submit(*(make_job() for _ in outcomes))
    waiting = _start(home, "wait", jobs[0].batch)
    for outcome in outcomes:
        queue.store.finish(queue.claim(), outcome)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == code
    assert all(job.id in err.decode() for job in jobs)


def test_wait_for_held_jobs_is_75_and_a_limit_is_124(home: Path, queue: Queue) -> None:
    queued, held = queue.submit(make_job("queued"), make_job("held"))
    queue.store.hold(held.id)
    waited = tatin(home, "wait", held.id)
    assert waited.code == 75
    assert f"(tatin release {held.id})" in waited.err
    assert tatin(home, "wait", queued.id, "--timeout", "1s").code == 124


def test_logs_follow_a_job_from_before_it_runs_to_its_end(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job())
    following = _start(home, "logs", job.id, "-f")
    lease = queue.claim()
    queue.store.write_log(lease, [("stdout", b"one \xe2\x9c"), ("tatin", b"a notice\n")])
    queue.store.write_log(lease, [("stdout", b"\x93\r50%\r100%\r\n\x1b[31mred\x1b[0m")])
    assert following.stdout is not None
    seen = _read_until(following.stdout.fileno(), b"red")
    assert following.poll() is None
    queue.store.finish(lease, Outcome.SUCCEEDED)
    out, err = following.communicate(timeout=30)
    assert following.returncode == 0
    assert (seen + out).decode() == "one \ntatin: a notice\n✓\n50%\n100%\nred\n"
    assert "succeeded" in err.decode()


def test_logs_go_on_with_the_next_attempt(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job())
    following = _start(home, "logs", job.id, "-f")
    for words in (b"first", b"second"):
        lease = queue.claim()
        queue.store.write_log(lease, [("stdout", words)])
        if words == b"first":
            queue.store.requeue(lease, message="", delay_seconds=0, counted=True)
    queue.store.finish(lease, Outcome.SUCCEEDED)
    out, _ = following.communicate(timeout=30)
    assert out.decode() == "first\ntatin: attempt 2\nsecond\n"


def test_stored_logs_are_cleaned_and_raw_ones_are_not(home: Path, queue: Queue) -> None:
    queue.submit(make_job())
    lease = queue.claim()
    log = b"\x1b]0;title\x07\x9b31m\xe2\x80\xae text\n"
    queue.finish(lease, log=log)
    assert tatin(home, "logs", lease.job.id).text == "\\x1b]0;title\\x07\\x9b31m\\u202e text\n"
    assert tatin(home, "logs", lease.job.id, "--raw").out == log


def test_diff_to_a_pipe_is_the_patch_byte_by_byte(home: Path, queue: Queue, tmp_path: Path) -> None:
    queue.submit(make_job())
    lease = queue.claim()
    queue.finish(lease, patch=PATCH)
    assert tatin(home, "diff", lease.job.id).out == PATCH
    target = tmp_path / "out.patch"
    assert tatin(home, "diff", lease.job.id, "-o", str(target)).code == 0
    assert target.read_bytes() == PATCH


def test_diff_to_a_terminal_is_cleaned(home: Path, queue: Queue) -> None:
    queue.submit(make_job())
    lease = queue.claim()
    queue.finish(lease, patch=PATCH)
    shown = on_terminal(home, "diff", lease.job.id)
    assert b"\\x1b]0;title\\x07two\\xff" in shown
    assert b"\x1b]" not in shown
    assert b"\x1b[32m" in shown  # our own colour
    assert b"\x1b[3" not in on_terminal(home, "diff", lease.job.id, NO_COLOR="1")


def test_diff_without_a_patch_says_why(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job())
    early = tatin(home, "diff", job.id)
    assert early.code == 2
    assert "it has not run" in early.err
    folder = queue.finish(queue.claim())
    (folder / "changes.patch").unlink()
    shown = tatin(home, "diff", job.id)
    assert shown.code == 1
    assert "has no patch" in shown.err


def test_artifacts_come_to_work_or_where_they_are_wanted(home: Path, queue: Queue, tmp_path: Path) -> None:
    one, two = queue.submit(make_job("one"), make_job("two"))
    queue.finish(queue.claim())
    queue.finish(queue.claim())
    here = tmp_path / "here"
    here.mkdir()
    assert tatin(home, "artifacts", one.id, cwd=here).text == f"work/{one.id}\n"
    assert (here / "work" / one.id / "artifacts" / "out.txt").read_bytes() == b"made\n"
    assert tatin(home, "artifacts", one.id, cwd=here).code == 0  # again: its own folder
    assert tatin(home, "artifacts", one.batch, "-o", "all", cwd=here).code == 0
    assert sorted(path.name for path in (here / "all").iterdir()) == sorted([one.id, two.id])
    listed = tatin(home, "artifacts", one.id, "--list", cwd=here)
    assert "artifacts/out.txt" in listed.text


def test_artifacts_never_go_into_a_foreign_folder_unasked(home: Path, queue: Queue, tmp_path: Path) -> None:
    (job,) = queue.submit(make_job())
    queue.finish(queue.claim())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    refused = tatin(home, "artifacts", job.id, "-o", str(foreign))
    assert refused.code == 2
    assert "is not empty" in refused.err
    assert [path.name for path in foreign.iterdir()] == ["mine.txt"]
    assert tatin(home, "artifacts", job.id, "-o", str(foreign), "--force").code == 0
    assert (foreign / "mine.txt").read_text() == "mine"


def test_results_on_another_host_are_said_to_be_there(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job())
    queue.store.finish(queue.claim(), Outcome.SUCCEEDED)
    shown = tatin(home, "artifacts", job.id)
    assert shown.code == 3
    assert "worker 'here'" in shown.err


def test_report_tells_of_the_last_day_and_of_a_batch(home: Path, queue: Queue) -> None:
    passed, failed = queue.submit(make_job("passed"), make_job("failed"))
    queue.finish(queue.claim(), patch=PATCH)
    queue.store.finish(queue.claim(), Outcome.FAILED, Reason.SETUP, "The setup\ncommand \x1b[31mfailed.")
    for shown in (tatin(home, "report"), tatin(home, "report", passed.batch)):
        assert "Passed (1)" in shown.text
        assert f"tatin diff {passed.id}" in shown.text
        assert "Failed: setup (1)" in shown.text
        assert "The setup command failed." in shown.text
        assert f"tatin show {failed.id}" in shown.text
    report = tatin(home, "report", "--json").json()
    assert report["counts"] == {"failed": 1, "succeeded": 1}
    assert report["failed"][0]["jobs"][0]["id"] == failed.id


def test_workers_and_drain(home: Path, queue: Queue) -> None:
    assert "no worker is running" in tatin(home, "workers").err
    queue.announce()
    assert "here" in tatin(home, "workers").text
    assert tatin(home, "drain", "here").code == 0
    assert tatin(home, "workers", "--json").json()["workers"][0]["draining"] is True
    assert tatin(home, "drain", "here", "--off").code == 0
    assert tatin(home, "workers", "--json").json()["workers"][0]["draining"] is False
    assert tatin(home, "drain", "nobody").code == 2


def test_a_worker_that_takes_nothing_is_named_with_why(home: Path, queue: Queue) -> None:
    queue.announce(problem="its service reaches no guest")
    queue.submit(make_job())
    for command in ("workers", "list"):
        assert "its service reaches no guest" in tatin(home, command).text
    assert "1 worker, 0 of the default job run at once" in tatin(home, "list").text


def test_a_worker_whose_beats_have_stopped_does_not_count(home: Path, queue: Queue) -> None:
    """It was killed: nobody says so for it."""
    queue.announce()
    seen = int(datetime.now(UTC).timestamp() * 1000) - 20_000
    queue.store._client.hset(queue.store._key("seen"), "here", str(seen))
    assert "no beat for 2" in tatin(home, "workers").text
    assert "no worker is running" in tatin(home, "list").text


def test_prune_keeps_what_waits_and_what_is_named(home: Path, queue: Queue) -> None:
    kept_blob, lost_blob = "a" * 64, "b" * 64
    for blob in (kept_blob, lost_blob):
        (queue.home.blobs / blob).write_bytes(b"blob")
    (done,) = queue.submit(make_job("done"))
    folder = queue.finish(queue.claim())
    (waiting,) = queue.submit(make_job("waiting", prompt_blob=kept_blob))
    assert tatin(home, "prune", "--older-than", "1d", "--json").json()["jobs"] == []
    assert not (queue.home.blobs / lost_blob).exists()
    assert (queue.home.blobs / kept_blob).exists()
    planned = tatin(home, "prune", "--older-than", "0s", "--dry-run", "--json").json()
    assert planned["jobs"] == [done.id]
    assert folder.exists()
    assert tatin(home, "prune", "--older-than", "0s").code == 0
    assert not folder.exists()
    assert [job.id for job in queue.store.list_jobs()] == [waiting.id]
    assert done.batch not in [batch.id for batch in queue.store.batches()]


def test_a_reader_that_goes_away_is_no_error(home: Path, queue: Queue) -> None:
    queue.submit(make_job())
    lease = queue.claim()
    queue.finish(lease, log=b"line\n" * 400_000)
    reading = _start(home, "logs", lease.job.id)
    assert reading.stdout is not None
    os.read(reading.stdout.fileno(), 10)
    reading.stdout.close()
    assert reading.wait(30) == 141
    assert reading.stderr is not None
    assert reading.stderr.read() == b""
    reading.stderr.close()


def test_watch_follows_the_queue_on_a_terminal(home: Path, queue: Queue) -> None:
    (job,) = queue.submit(make_job("watched"))
    with _watching(home) as terminal:
        assert job.id.encode() in _read_until(terminal, b"queued #1")
        queue.claim()
        _read_until(terminal, b"running")


def test_watch_says_on_a_small_screen_how_many_are_not_shown_and_what_all_do(home: Path, queue: Queue) -> None:
    queue.submit(*(make_job(f"small-{number}") for number in range(30)))
    with _watching(home, (20, 120)) as terminal:
        assert b"... 14 more" in _read_until(terminal, b"30 queued")


@contextmanager
def _watching(home: Path, size: tuple[int, int] | None = None) -> Iterator[int]:
    """``tatin list --watch`` on a terminal; Ctrl-C ends it."""
    terminal, inner = pty.openpty()
    if size:
        termios.tcsetwinsize(inner, size)
    watching = subprocess.Popen(
        argv("list", "--watch"),
        cwd=home,
        env=environment(home, {"TERM": "xterm"}),
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    try:
        yield terminal
    finally:
        watching.send_signal(2)
        assert watching.wait(30) == 0
        os.close(terminal)


def test_the_version_needs_no_home(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    done = subprocess.run(argv("--version"), cwd=ROOT, env=environment(nowhere), capture_output=True, check=True)
    assert done.stdout.startswith(b"tatin ")
    assert not nowhere.exists()


def _ids(shown: dict[str, list[dict[str, str]]]) -> list[str]:
    return [job["id"] for job in shown["jobs"]]


def _start(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv(*arguments), cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _read_until(fd: int, mark: bytes, seconds: float = 30) -> bytes:
    seen = b""
    deadline = time.monotonic() + seconds
    while mark not in seen:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, seen
        seen += os.read(fd, 65_536)
    return seen
