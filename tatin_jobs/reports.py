"""The report on a batch or a night: records in, a structure out, and its text. Pure functions.

Read in the morning, so in this order: what needs a look, what failed and why, what passed, what is still open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from tatin_jobs.models import AttemptSummary, Frozen, Job
from tatin_jobs.states import JobState, Outcome, Reason
from tatin_jobs.terminal import clean_line
from tatin_jobs.units import format_duration


class ReportLine(Frozen):
    """One job of a report. ``look`` says why a person should look at it; None when it went as it should, or plainly
    failed. Figures are None when they are not known. ``next`` is a command."""

    id: str
    batch: str
    state: JobState
    outcome: Outcome | None
    reason: Reason | None
    message: str
    look: str | None
    patch_bytes: int | None
    files_changed: int | None
    lines_added: int | None
    lines_removed: int | None
    artifacts: int
    wall_seconds: float | None
    cost_usd: float | None
    finished_at: datetime | None
    blocked: int | None
    """Places that the guest wanted to reach and might not."""
    next: str


class ReportGroup(Frozen):
    """The failures of one reason."""

    reason: Reason | None
    jobs: tuple[ReportLine, ...]


class Report(Frozen):
    """``counts``: each outcome, and each state of the jobs without one. A job is in exactly one of the lists."""

    title: str
    made_at: datetime
    counts: dict[str, int]
    wall_seconds: float
    """All attempts' time added up."""
    cost_usd: float | None
    """What is known of it; None when no job told."""
    needs_a_look: tuple[ReportLine, ...]
    failed: tuple[ReportGroup, ...]
    passed: tuple[ReportLine, ...]
    cancelled: tuple[ReportLine, ...]
    open: tuple[ReportLine, ...]

    @property
    def jobs(self) -> int:
        """How many jobs it is about."""
        return sum(self.counts.values())


def make_report(jobs: Sequence[Job], *, title: str, now: datetime) -> Report:
    """Sort the jobs as a morning reads them; each list is in the order of ``jobs``, the most frequent reason first."""
    lines = [_line(job) for job in jobs]
    plain = [line for line in lines if line.look is None]
    failed: dict[Reason | None, list[ReportLine]] = {}
    for line in plain:
        if line.outcome in (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST):
            failed.setdefault(line.reason, []).append(line)
    costs = [line.cost_usd for line in lines if line.cost_usd is not None]
    return Report(
        title=title,
        made_at=now,
        counts=dict(sorted(Counter(str(line.outcome or line.state) for line in lines).items())),
        wall_seconds=sum(line.wall_seconds or 0 for line in lines),
        cost_usd=sum(costs) if costs else None,
        needs_a_look=tuple(line for line in lines if line.look is not None),
        failed=tuple(
            ReportGroup(reason=reason, jobs=tuple(group))
            for reason, group in sorted(failed.items(), key=lambda item: (-len(item[1]), item[0] or ""))
        ),
        passed=tuple(line for line in plain if line.outcome is Outcome.SUCCEEDED),
        cancelled=tuple(line for line in plain if line.outcome is Outcome.CANCELLED),
        open=tuple(line for line in plain if line.outcome is None),
    )


def in_report(job: Job, *, now: datetime, since: timedelta) -> bool:
    """Whether a report on the time ``since`` tells of the job: it ended in that time, or has not ended."""
    return job.finished_at is None or job.finished_at >= now - since


def diff_text(added: int | None, removed: int | None, files: int | None, size_bytes: int | None) -> str:
    """``+12 -3 in 2 files``, ``no changes``, or nothing when it is not known."""
    if size_bytes is None or files is None:
        return ""
    if not size_bytes:
        return "no changes"
    return f"+{added or 0} -{removed or 0} in {files} file{'' if files == 1 else 's'}"


def report_text(report: Report) -> str:
    """The report for people, clean lines without colour."""
    lines = [f"{report.title}: {_counted(report)}"]
    lines += _section("Needs a look", report.needs_a_look)
    for group in report.failed:
        lines += _section(f"Failed: {group.reason or 'unknown'}", group.jobs)
    lines += _section("Passed", report.passed)
    lines += _section("Cancelled", report.cancelled)
    lines += _section("Not over yet", report.open)
    return "\n".join(lines) + "\n"


def _line(job: Job) -> ReportLine:
    summary = job.summary or AttemptSummary()
    look = _look(job, summary)
    return ReportLine(
        id=job.id,
        batch=job.batch,
        state=job.state,
        outcome=job.outcome,
        reason=job.reason,
        message=clean_line(job.message),
        look=look,
        patch_bytes=summary.patch_bytes,
        files_changed=summary.files_changed,
        lines_added=summary.lines_added,
        lines_removed=summary.lines_removed,
        artifacts=summary.artifacts,
        wall_seconds=summary.wall_seconds,
        cost_usd=summary.cost_usd,
        finished_at=job.finished_at,
        blocked=summary.blocked,
        next=_next(job, summary),
    )


def _look(job: Job, summary: AttemptSummary) -> str | None:
    """What only a person can decide: held work, work that was cut short or failed its check, a success without any."""
    if job.state is JobState.HELD:
        return "held" if job.held_until is None else f"held until {job.held_until:%Y-%m-%d %H:%M} UTC"
    worked = bool(summary.patch_bytes or summary.artifacts)
    match job.outcome:
        case Outcome.SUCCEEDED if not worked and not (summary.patch_bytes is None and summary.folder is None):
            return "succeeded, but changed nothing"
        case Outcome.TIMED_OUT if worked:
            return "out of time, with changes"
        case Outcome.FAILED if worked and job.reason is Reason.VERIFY:
            return "changes that fail the check"
        case Outcome.LOST:
            return "lost with its workers"
    return None


def _next(job: Job, summary: AttemptSummary) -> str:
    if job.state is JobState.HELD:
        return f"tatin release {job.id}"
    if job.state is not JobState.FINISHED:
        return f"tatin logs {job.id} -f"
    if job.outcome in (Outcome.LOST, Outcome.CANCELLED):
        return f"tatin retry {job.id}"
    if summary.patch_bytes:
        return f"tatin diff {job.id}"
    if job.outcome is Outcome.SUCCEEDED:
        return f"tatin artifacts {job.id}" if summary.artifacts else f"tatin logs {job.id}"
    # Where the agent never ran there is no log to read.
    ran = summary.exit_status is not None or bool(summary.agent_seconds)
    return f"tatin logs {job.id}" if ran else f"tatin show {job.id}"


def _counted(report: Report) -> str:
    if not report.jobs:
        return "no jobs."
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items())
    cost = "" if report.cost_usd is None else f", ${report.cost_usd:.2f}"
    jobs = f"{report.jobs} job{'' if report.jobs == 1 else 's'} ({counts})"
    return f"{jobs}, {format_duration(report.wall_seconds)} in all{cost}."


def _section(title: str, jobs: Sequence[ReportLine]) -> list[str]:
    if not jobs:
        return []
    rows = [(line.id, _diff(line), _time(line)) for line in jobs]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["", f"{title} ({len(jobs)})"]
    for row, line in zip(rows, jobs, strict=True):
        figures = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        said = "; ".join(part for part in (line.look, line.message, _blocked(line)) if part)
        lines.append(f"  {figures}  -> {line.next}")
        if said:
            lines.append(f"      {said}")
    return lines


def _diff(line: ReportLine) -> str:
    text = diff_text(line.lines_added, line.lines_removed, line.files_changed, line.patch_bytes)
    if line.artifacts:
        text += f"{', ' if text else ''}{line.artifacts} artifact{'' if line.artifacts == 1 else 's'}"
    return text or "-"


def _blocked(line: ReportLine) -> str:
    """The network of a job that wanted more of it than it had."""
    if not line.blocked:
        return ""
    return f"{line.blocked} place{'' if line.blocked == 1 else 's'} blocked (tatin show {line.id})"


def _time(line: ReportLine) -> str:
    return "-" if line.wall_seconds is None else format_duration(line.wall_seconds)
