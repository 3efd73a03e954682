"""How jobs and workers look: glyphs, rows of a table, ages; and the same facts as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tatin_jobs.cli.output import cell, plain_table
from tatin_jobs.models import Job
from tatin_jobs.reports import diff_text
from tatin_jobs.states import HeldFor, JobState, Outcome
from tatin_jobs.terminal import clean_line
from tatin_jobs.units import format_duration

if TYPE_CHECKING:
    from rich.table import Table

_GLYPHS = {JobState.QUEUED: "○", JobState.HELD: "◐", JobState.RUNNING: "●"}
_STYLES = {JobState.QUEUED: "", JobState.HELD: "yellow", JobState.RUNNING: "cyan"}


def glyph(job: Job) -> str:
    """``○`` queued, ``◐`` held, ``●`` running, ``✓`` succeeded, ``✗`` any other end."""
    if job.state is JobState.FINISHED:
        return "✓" if job.outcome is Outcome.SUCCEEDED else "✗"
    return _GLYPHS[job.state]


def style(job: Job) -> str:
    """The colour that goes with the glyph."""
    if job.state is JobState.FINISHED:
        return "green" if job.outcome is Outcome.SUCCEEDED else "red"
    return _STYLES[job.state]


def status(job: Job, place: int | None = None) -> str:
    """Where it is, or how it ended: ``queued #3``, ``running: cloning``, ``failed: verify``."""
    if job.state is JobState.FINISHED:
        return f"{job.outcome}: {job.reason}" if job.reason else str(job.outcome)
    if job.state is JobState.RUNNING:
        cancelling = ", cancelling" if job.cancel_wanted else ""
        return f"running{f': {job.step}' if job.step else ''}{cancelling}"
    if job.state is JobState.HELD:
        return _held(job)
    return f"queued #{place}" if place else "queued"


def _held(job: Job) -> str:
    """``held until 07:00:00``, ``held until 01:00:00: quota``, ``held: needs build-x +2``."""
    if job.held_for is HeldFor.NEEDS and job.needs:
        more = f" +{len(job.needs) - 1}" if len(job.needs) > 1 else ""
        return f"held: needs {job.needs[0]}{more}"
    until = f" until {local(job.held_until)}" if job.held_until else ""
    why = f": {job.held_for}" if job.held_for in (HeldFor.QUOTA, HeldFor.ROUTE) else ""
    return f"held{until}{why}"


def agent(job: Job) -> str:
    """``opencode qwen3-coder``"""
    return f"{job.spec.tool} {job.spec.model.name}" if job.spec.model else job.spec.tool


def cell_text(job: Job) -> str:
    """Which combination of a matrix, and which trial: ``tool=pi prompt_file=b.md #2``; nothing where there is one."""
    parts = [f"{axis}={value}" for axis, value in job.spec.cell.items()]
    if job.spec.trials > 1:
        parts.append(f"#{job.spec.trial}")
    return " ".join(parts)


def took(job: Job, now: datetime) -> str:
    """How long the newest attempt took or has taken; a dash before the first."""
    if job.summary and job.summary.wall_seconds is not None:
        return format_duration(job.summary.wall_seconds)
    if job.started_at is None or job.state in (JobState.QUEUED, JobState.HELD):
        return "-"
    return format_duration(max(0.0, ((job.finished_at or now) - job.started_at).total_seconds()))


def age(instant: datetime, now: datetime) -> str:
    """How long ago, in one or two units; never less than nothing, as clocks differ."""
    return format_duration(max(0.0, (now - instant).total_seconds()))


def local(instant: datetime | None) -> str:
    """An instant in the reader's zone: the time alone when it is today."""
    if instant is None:
        return "-"
    there = instant.astimezone()
    today = there.date() == datetime.now(UTC).astimezone().date()
    return there.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def jobs_table(jobs: Sequence[Job], places: Mapping[str, int], now: datetime) -> Table:
    """One row a job; a column for the cell where any job has one."""
    cells = ("CELL",) if any(map(cell_text, jobs)) else ()
    table = plain_table("", "ID", "STATUS", "AGE", "TIME", "DIFF", "AGENT", *cells, "WORKER", right=("AGE", "TIME"))
    for job in jobs:
        table.add_row(
            cell(glyph(job), style(job)),
            cell(job.id),
            cell(status(job, places.get(job.id)), style(job)),
            cell(age(job.created_at, now)),
            cell(took(job, now)),
            cell(job_diff(job)),
            cell(agent(job), limit=40),
            *([cell(cell_text(job), limit=60)] if cells else []),
            cell(job.worker or "-", limit=30),
        )
    return table


def job_diff(job: Job) -> str:
    """``+12 -3 in 2 files``, or nothing."""
    summary = job.summary
    if summary is None:
        return ""
    return diff_text(summary.lines_added, summary.lines_removed, summary.files_changed, summary.patch_bytes)


def job_json(job: Job, *, place: int | None = None, spec: bool = False) -> dict[str, Any]:
    """A job's record as programs get it; with ``spec`` also what it was asked to do. The lease's token stays out."""
    fields = job.model_dump(mode="json", exclude={"token", "spec"})
    fields |= {
        "name": job.spec.name,
        "tool": job.spec.tool,
        "model": job.spec.model.model_dump(mode="json") if job.spec.model else None,
        "labels": dict(job.spec.labels),
        "cell": dict(job.spec.cell),
        "trial": job.spec.trial,
        "place_in_line": place,
    }
    if spec:
        fields["spec"] = job.spec.model_dump(mode="json")
    return fields


def ended(job: Job) -> str:
    """``✗ failed: verify after 14s  The verify command exited with 1.``"""
    seconds = job.summary.wall_seconds if job.summary else None
    after = "" if seconds is None else f" after {format_duration(seconds)}"
    return f"{glyph(job)} {status(job)}{after}  {clean_line(job.message)}".rstrip()


def one_line(job: Job) -> str:
    """``✗ fix-abc failed: verify  The verify command exited with 1 after 2s.``"""
    text = f"{glyph(job)} {job.id}  {status(job)}"
    return f"{text}  {clean_line(job.message)}" if job.message else text
