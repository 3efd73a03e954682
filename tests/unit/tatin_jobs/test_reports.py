"""The report: who lands where, and how it reads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tatin_jobs.models import AttemptSummary, Job
from tatin_jobs.reports import Report, in_report, make_report, report_text
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.cli import NOW, make_job

CHANGED = AttemptSummary(patch_bytes=90, files_changed=2, lines_added=12, lines_removed=3, exit_status=0, folder="x")
UNCHANGED = AttemptSummary(patch_bytes=0, files_changed=0, exit_status=0, folder="x")


def ended(outcome: Outcome, reason: Reason | None = None, summary: AttemptSummary | None = None, **fields: Any) -> Job:
    return make_job(state=JobState.FINISHED, outcome=outcome, reason=reason, summary=summary, finished_at=NOW, **fields)


def report(*jobs: Job) -> Report:
    return make_report(jobs, title="Batch b-x", now=NOW)


@pytest.mark.parametrize(
    ("job", "section", "command"),
    [
        (ended(Outcome.SUCCEEDED, summary=CHANGED), "passed", "diff"),
        (ended(Outcome.SUCCEEDED, summary=UNCHANGED.model_copy(update={"artifacts": 2})), "passed", "artifacts"),
        (ended(Outcome.SUCCEEDED, summary=UNCHANGED), "needs_a_look", "logs"),
        (ended(Outcome.TIMED_OUT, Reason.STALLED, CHANGED), "needs_a_look", "diff"),
        (ended(Outcome.TIMED_OUT, Reason.STALLED, UNCHANGED), "failed", "logs"),
        (ended(Outcome.FAILED, Reason.VERIFY, CHANGED), "needs_a_look", "diff"),
        (ended(Outcome.FAILED, Reason.VERIFY, UNCHANGED), "failed", "logs"),
        (ended(Outcome.FAILED, Reason.REPO), "failed", "show"),
        (ended(Outcome.LOST, Reason.WORKER), "needs_a_look", "retry"),
        (ended(Outcome.CANCELLED), "cancelled", "retry"),
        (make_job(state=JobState.HELD), "needs_a_look", "release"),
        (make_job(state=JobState.RUNNING), "open", "logs"),
        (make_job(state=JobState.QUEUED), "open", "logs"),
    ],
)
def test_a_job_is_in_one_section_with_what_to_do_next(job: Job, section: str, command: str) -> None:
    made = report(job)
    sections = {
        "needs_a_look": made.needs_a_look,
        "failed": tuple(line for group in made.failed for line in group.jobs),
        "passed": made.passed,
        "cancelled": made.cancelled,
        "open": made.open,
    }
    assert [name for name, lines in sections.items() if lines] == [section]
    assert sections[section][0].next.startswith(f"tatin {command} {job.id}")


def test_a_job_that_wanted_more_network_than_it_had_is_marked() -> None:
    wanted = ended(Outcome.SUCCEEDED, summary=CHANGED.model_copy(update={"blocked": 2}))
    had = ended(Outcome.SUCCEEDED, summary=CHANGED.model_copy(update={"blocked": 0}))
    text = report_text(report(wanted, had))
    assert text.count("blocked") == 1
    assert f"2 places blocked (tatin show {wanted.id})" in text


def test_failures_are_grouped_by_reason_the_most_frequent_first() -> None:
    jobs = [ended(Outcome.FAILED, reason) for reason in (Reason.REPO, Reason.AGENT, Reason.AGENT)]
    groups = report(*jobs).failed
    assert [(group.reason, len(group.jobs)) for group in groups] == [(Reason.AGENT, 2), (Reason.REPO, 1)]


def test_costs_add_up_and_stay_unknown_when_nobody_told() -> None:
    paid = ended(Outcome.SUCCEEDED, summary=CHANGED.model_copy(update={"cost_usd": 0.25, "wall_seconds": 90}))
    assert report(ended(Outcome.SUCCEEDED, summary=CHANGED)).cost_usd is None
    assert report(paid, paid, ended(Outcome.CANCELLED)).cost_usd == 0.5
    assert "3m00s in all, $0.50." in report_text(report(paid, paid))


def test_the_text_reads_as_a_morning_does() -> None:
    bad = ended(Outcome.FAILED, Reason.SETUP, message="It failed:\n\x1b]0;x\x07\u202e[red]bad[/red]")
    good = ended(Outcome.SUCCEEDED, summary=CHANGED.model_copy(update={"wall_seconds": 72}))
    lines = report_text(report(good, bad)).splitlines()
    assert lines[0] == "Batch b-x: 2 jobs (1 failed, 1 succeeded), 1m12s in all."
    assert lines[2] == "Failed: setup (1)"
    assert lines[4] == "      It failed: \\x1b]0;x\\x07\\u202e[red]bad[/red]"
    assert lines[6:] == ["Passed (1)", f"  {good.id}  +12 -3 in 2 files  1m12s  -> tatin diff {good.id}"]


def test_a_night_tells_of_what_ended_in_it_and_of_what_has_not() -> None:
    day = timedelta(hours=24)
    ended_job = ended(Outcome.SUCCEEDED)
    assert in_report(ended_job, now=NOW + timedelta(hours=23), since=day)
    assert not in_report(ended_job, now=NOW + timedelta(hours=25), since=day)
    assert in_report(make_job(), now=NOW + timedelta(days=20), since=day)
