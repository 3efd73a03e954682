"""Small pieces of what commands show: exit codes, rows, patches, events, lines of a log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tatin_jobs.cli.jobs_view import agent, glyph, job_json, status, took
from tatin_jobs.cli.log_view import LineSplitter
from tatin_jobs.cli.outcomes import exit_code
from tatin_jobs.cli.patch_view import diffstat, stat_lines
from tatin_jobs.cli.readable import event_lines, event_of
from tatin_jobs.cli.show import result_fields
from tatin_jobs.models import Job, Model
from tatin_jobs.results import VerifyFacts
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tests.support.cli import NOW, make_job, make_result

DONE = {"state": JobState.FINISHED}
HELD = make_job(state=JobState.HELD)


def ended(outcome: Outcome) -> Job:
    return make_job(**DONE, outcome=outcome)


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([ended(Outcome.SUCCEEDED)], 0),
        ([ended(Outcome.FAILED), ended(Outcome.TIMED_OUT), HELD], 1),
        ([ended(Outcome.LOST)], 1),
        ([ended(Outcome.TIMED_OUT), HELD, ended(Outcome.CANCELLED)], 124),
        ([HELD, ended(Outcome.CANCELLED)], 75),
        ([ended(Outcome.CANCELLED), ended(Outcome.SUCCEEDED)], 130),
    ],
)
def test_the_worst_outcome_decides_the_exit_code(jobs: list[Job], code: int) -> None:
    assert exit_code(jobs) == code


@pytest.mark.parametrize(
    ("job", "mark", "text"),
    [
        (make_job(), "○", "queued #3"),
        (HELD, "◐", "held"),
        (make_job(state=JobState.RUNNING, step=Step.CLONING), "●", "running: cloning"),
        (make_job(state=JobState.RUNNING, cancel_wanted=True), "●", "running, cancelling"),
        (make_job(**DONE, outcome=Outcome.SUCCEEDED), "✓", "succeeded"),
        (make_job(**DONE, outcome=Outcome.FAILED, reason=Reason.VERIFY), "✗", "failed: verify"),
    ],
)
def test_state_and_outcome_are_one_glyph_and_a_few_words(job: Job, mark: str, text: str) -> None:
    assert glyph(job) == mark
    assert status(job, 3) == text


def test_a_row_names_the_agent_and_its_time() -> None:
    job = make_job(model=Model(name="m"), state=JobState.RUNNING, started_at=NOW)
    assert agent(job) == "command m"
    assert took(job, NOW + timedelta(seconds=75)) == "1m15s"
    assert took(job, NOW - timedelta(seconds=75)) == "0.0s"  # clocks differ
    assert took(make_job(), NOW) == "-"


def test_json_of_a_job_keeps_the_lease_to_itself() -> None:
    fields = job_json(make_job(token="store:1", state=JobState.RUNNING), spec=True)
    assert "token" not in fields
    assert fields["created_at"] == "2026-03-04T05:06:07Z"
    assert fields["spec"]["tool"] == "command"


def test_a_patch_is_counted_file_by_file() -> None:
    patch = b"""diff --git a/a.txt b/a.txt
--- a/a.txt
+++ b/a.txt
@@ -1,2 +1,3 @@
 one
-two
+diff --git a/fake b/fake
+--- a/fake
\\ No newline at end of file
diff --git a/pic.png b/pic.png
GIT binary patch
literal 4
Lc$~{k
diff --git "a/\\033[31m" "b/\\033[31m"
@@ -0,0 +1 @@
+x
"""
    files = diffstat(patch.splitlines(keepends=True))
    assert [(file.added, file.removed, file.binary) for file in files] == [(2, 1, False), (0, 0, True), (1, 0, False)]
    assert list(stat_lines(files, limit=2)) == ["a.txt    +2 -1", "pic.png  binary", "... and 1 more"]
    assert "\x1b" not in files[2].path


def test_events_read_as_a_person_follows_them() -> None:
    assert list(event_lines({"kind": "message", "text": "Hello\nthere"})) == [("Hello", ""), ("there", "")]
    call = {"kind": "tool_call", "text": "make test", "data": {"name": "bash"}}
    assert list(event_lines(call)) == [("$ bash make test", "cyan")]
    result = [line for line, _ in event_lines({"kind": "tool_result", "text": "\n".join("abcdef")})]
    assert result == ["  a", "  b", "  c", "  ... 3 more lines"]
    failed = {"kind": "tool_result", "text": "no", "data": {"failed": True}}
    assert list(event_lines(failed)) == [("  no", "red")]
    assert list(event_lines({"kind": "reasoning", "text": "Hm.\n\nWell."})) == [
        ("~ Hm.", "dim italic"),
        ("~ Well.", "dim italic"),
    ]
    assert list(event_lines({"kind": "retry", "text": "again after 500"})) == [("! again after 500", "yellow")]
    for kind in ("usage", "final", "step"):
        assert list(event_lines({"kind": kind, "text": "x"})) == [], "said elsewhere"


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_event_is_shown_as_nothing(data: bytes) -> None:
    assert list(event_lines(event_of(data))) == []


def test_lines_are_whole_and_never_too_long() -> None:
    lines: list[str] = []
    splitter = LineSplitter(lines.append)
    for piece in (b"one\ntw", b"o\n", b"x" * 4500, b"\n", b"last"):
        splitter.feed(piece)
    splitter.close()
    assert lines[:2] == ["one", "two"]
    assert [len(line) for line in lines[2:]] == [2000, 2000, 500, 4]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"exit_status": 0, "passed": True}, "make test (exited with 0 after 2.0s): passed"),
        ({"exit_status": 1, "passed": True, "reward": 1.5}, "make test (exited with 1 after 2.0s), reward 1.5: passed"),
        (
            {"timed_out": True, "passed": False, "where": "fresh"},
            "make test (passed its time limit after 2.0s), in a second sandbox: not passed",
        ),
        (
            {"passed": False, "where": "fresh", "problem": "No patch."},
            "make test (not run), in a second sandbox: not passed",
        ),
    ],
)
def test_verify_is_shown_with_what_it_found(facts: dict[str, Any], words: str) -> None:
    result = make_result(make_job(), verify=VerifyFacts(run="make test\n", seconds=2, **facts))
    assert dict(result_fields(result))["verify"] == words
