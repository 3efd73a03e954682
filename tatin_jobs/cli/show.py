"""``tatin show``: everything about a job, or a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tatin_jobs.cli.attempts import StoredAttempt, stored_attempts
from tatin_jobs.cli.jobs_view import agent, cell_text, glyph, job_diff, job_json, jobs_table, local, status, took
from tatin_jobs.cli.network_view import network_fields
from tatin_jobs.cli.options import AsJson, JobOrBatch
from tatin_jobs.cli.output import console, print_json, write_text
from tatin_jobs.cli.session import Session, now, open_session
from tatin_jobs.models import Batch, Job, JobEvent
from tatin_jobs.reports import diff_text
from tatin_jobs.results import CommandFacts, Result, VerifyFacts
from tatin_jobs.states import JobState
from tatin_jobs.terminal import clean, clean_line
from tatin_jobs.units import format_duration, format_size

Field = tuple[str, str]
"""A label and its value; an empty label goes on with the one before."""
EVENTS_SHOWN = 30


def command(job_id: JobOrBatch, as_json: AsJson = False) -> None:
    """Show everything about a job.

    Where it is, its attempts and their results, its events. Of a batch, its jobs.
    """
    with open_session() as session:
        found = session.store.resolve_any(job_id)
        if isinstance(found, Batch):
            _show_batch(session, found, as_json)
            return
        place = session.store.place_in_line(found.id)
        events = session.store.events(found.id)
    attempts = stored_attempts(session.home, found.id)
    if as_json:
        print_json({"job": _job_json(found, place, attempts, events)})
    else:
        fields = [*_job_fields(found, place), *_attempts_fields(found, attempts), *_event_fields(events)]
        write_text(_aligned(fields))


def _show_batch(session: Session, batch: Batch, as_json: bool) -> None:
    jobs = session.store.jobs(batch.jobs)
    if as_json:
        print_json({"batch": {**batch.model_dump(mode="json"), "jobs": [job_json(job) for job in jobs]}})
        return
    source = clean_line(batch.source) or "-"
    write_text(_aligned([("batch", batch.id), ("from", source), ("submitted", local(batch.created_at))]))
    if len(jobs) < len(batch.jobs):
        write_text(f"{len(batch.jobs) - len(jobs)} of its jobs were pruned\n")
    console().print(jobs_table(jobs, {}, now()))


def _job_json(job: Job, place: int | None, attempts: list[StoredAttempt], events: list[JobEvent]) -> dict[str, Any]:
    return {
        **job_json(job, place=place, spec=True),
        "attempts": [
            {
                "attempt": attempt.number,
                "folder": str(attempt.folder),
                "result": attempt.result.model_dump(mode="json") if attempt.result else None,
            }
            for attempt in attempts
        ],
        "events": [event.model_dump(mode="json") for event in events],
    }


def _job_fields(job: Job, place: int | None) -> Iterator[Field]:
    spec = job.spec
    yield "job", f"{glyph(job)} {job.id}"
    yield "status", status(job, place)
    if job.message:
        yield "message", job.message
    if job.needs:
        yield "waits for", ", ".join(job.needs)
    if spec.deadline:
        yield "deadline", local(spec.deadline)
    if spec.account:
        yield "account", spec.account
    yield "batch", job.batch
    if job.retry_of:
        yield "retry of", job.retry_of
    yield "agent", agent(job)
    if cell := cell_text(job):
        yield "cell", cell
    yield "repository", f"{spec.repo.url or spec.repo.path or '-'}{f' at {spec.repo.ref}' if spec.repo.ref else ''}"
    if spec.prompt:
        yield "prompt", clean_line(spec.prompt, 200)
    if spec.labels:
        yield "labels", ", ".join(f"{name}={value}" for name, value in spec.labels.items())
    yield "needs", _need(job)
    if spec.priority:
        yield "priority", str(spec.priority)
    yield "submitted", local(job.created_at)
    if job.started_at:
        yield "started", local(job.started_at)
    if job.finished_at:
        yield "finished", local(job.finished_at)
    if job.started_at:
        yield "time", took(job, now())
    if job.worker:
        yield "worker", job.worker
    yield "attempts", f"{job.attempt}, {job.retries_used} of {spec.retries.max} retries used"
    if job.deaths:
        yield "deaths", f"{job.deaths} workers died while they ran it"
    if diff := job_diff(job):
        yield "changes", diff
    if job.state is JobState.RUNNING:
        yield "next", f"tatin logs {job.id} -f"


def _need(job: Job) -> str:
    need = job.need

    def part(text: str, wish: bool) -> str:
        return f"{text}{' (or less)' if wish else ''}"

    parts = [
        part(f"{need.cpus} CPUs", need.cpus_wish),
        part(f"{need.memory_mib} MiB memory", need.memory_wish),
        part(f"{need.disk_mib} MiB disk", need.disk_wish),
        *need.tags,
    ]
    return ", ".join(parts)


def _attempts_fields(job: Job, attempts: list[StoredAttempt]) -> Iterator[Field]:
    """A result counts where the store says so: the host of a worker that died may not have learned of a newer one."""
    for attempt in attempts:
        yield "", ""
        yield f"attempt {attempt.number}", str(attempt.folder)
        if attempt.result is None:
            yield "", "no result yet: it runs, or its worker died"
        else:
            outrun = attempt.number != job.attempt and job.state is JobState.FINISHED
            yield from result_fields(
                attempt.result.model_copy(update={"accepted": False}) if outrun else attempt.result
            )


def result_fields(result: Result) -> Iterator[Field]:
    """What is known of one attempt."""
    ended = f"{result.outcome}{f': {result.reason}' if result.reason else ''}"
    yield "ended", ended if result.accepted else f"{ended} (did not decide the job)"
    if result.message:
        yield "message", result.message
    if result.steps:
        yield "steps", ", ".join(f"{step.step} {format_duration(step.seconds)}" for step in result.steps)
    if box := result.sandbox:
        kernel = "its own kernel" if box.separate_kernel else "the host's kernel"
        peak = f", {box.peak_memory_mib} MiB at most" if box.peak_memory_mib is not None else ""
        yield "sandbox", f"{box.kind}, {kernel}, {box.cpus} CPUs, {box.memory_mib} MiB{peak}"
    if result.commit:
        yield "commit", result.commit
    if result.agent.version:
        yield "tool", f"{result.agent.tool} {result.agent.version}"
    if result.setup:
        yield "setup", _ran(result.setup)
    if result.verify:
        yield "verify", _verified(result.verify)
    if result.secrets:
        yield "secrets", f"{', '.join(result.secrets)} (were in the guest)"
    if result.limits_hit:
        yield "limits hit", ", ".join(result.limits_hit)
    if usage := _usage(result):
        yield "usage", usage
    yield from network_fields(result)
    if result.patch:
        patch = result.patch
        commits = f", {patch.commits} commit{'' if patch.commits == 1 else 's'}" if patch.commits else ""
        diff = diff_text(patch.lines_added, patch.lines_removed, patch.files_changed, patch.size_bytes)
        yield "patch", f"{diff}, {format_size(patch.size_bytes)}{commits}"
    elif result.patch_missing:
        yield "no patch", result.patch_missing
    for index, item in enumerate(result.artifacts[:20]):
        yield "" if index else "artifacts", f"{format_size(item.size_bytes):>10}  {item.name}"
    if len(result.artifacts) > 20:
        yield "", f"... and {len(result.artifacts) - 20} more; tatin artifacts {result.job} --list"
    for index, text in enumerate(result.refused[:10]):
        yield "" if index else "not taken", text
    if result.incomplete:
        yield "incomplete", result.incomplete
    if result.agent.final_text:
        yield "last words", clean_line(result.agent.final_text, 400)


def _ran(facts: CommandFacts) -> str:
    said = "passed its time limit" if facts.timed_out else f"exited with {facts.exit_status}"
    return f"{facts.run.strip()} ({said} after {format_duration(facts.seconds)})"


def _verified(facts: VerifyFacts) -> str:
    """What it ran, where, and what it found."""
    where = ", in a second sandbox" if facts.where == "fresh" else ""
    reward = "" if facts.reward is None else f", reward {facts.reward:g}"
    found = {True: "passed", False: "not passed", None: "not known"}[facts.passed]
    ran = _ran(facts) if facts.timed_out or facts.exit_status is not None else f"{facts.run.strip()} (not run)"
    return f"{ran}{where}{reward}: {found}"


def _usage(result: Result) -> str:
    """Figures that are known; the cost always where a model was used, as unknown when it is."""
    usage = result.usage
    parts = [
        ("turns", usage.turns),
        ("tool calls", usage.tool_calls),
        ("tokens in", usage.input_tokens),
        ("tokens out", usage.output_tokens),
        ("read from cache", usage.cache_read_tokens),
        ("written to cache", usage.cache_write_tokens),
        ("model calls", usage.model_calls),
        ("that told of no tokens", usage.untold_calls or None),
    ]
    said = [f"{value:,} {name}" for name, value in parts if value is not None]
    if usage.model_seconds is not None:
        said.append(f"{format_duration(usage.model_seconds)} of model time")
    if usage.cost_usd is not None:
        said.append(f"${usage.cost_usd:.4f}")
    elif usage.model_calls:
        says = f" (the tool says ${usage.tool.cost_usd:.4f})" if usage.tool.cost_usd is not None else ""
        said.append(f"cost unknown{says}")
    return ", ".join(said)


def _event_fields(events: list[JobEvent]) -> Iterator[Field]:
    if events:
        yield "", ""
    for index, event in enumerate(events[-EVENTS_SHOWN:]):
        attempt = f" (attempt {event.attempt})" if event.attempt else ""
        detail = f" {clean_line(event.detail, 120)}" if event.detail else ""
        yield "" if index else "events", f"{local(event.at)}  {event.move}{detail}{attempt}"


def _aligned(fields: Iterator[Field] | list[Field]) -> str:
    """Labels in one column, values cleaned in the other; a value of several lines stays in its column."""
    lines = []
    for label, value in fields:
        text = clean(value).replace("\n", "\n" + " " * 13)
        lines.append(f"{clean(label):<11}  {text}".rstrip())
    return "\n".join(lines) + "\n"
