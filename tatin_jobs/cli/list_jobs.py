"""``tatin list``: the queue at a glance, once or live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tatin_jobs.cli.jobs_view import job_json, jobs_table, local
from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import console, on_terminal, print_json
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.errors import BadInput
from tatin_jobs.models import Batch, Job, WorkerInfo
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store
from tatin_jobs.submitting import at_once_range, default_need, live_workers, take_nothing, why_never
from tatin_jobs.terminal import clean_line

if TYPE_CHECKING:
    from rich.console import Group

REFRESH_SECONDS = 2.0
"""The ages on the screen are renewed this often, also when nothing moves."""
RECENT = 10
"""Finished jobs shown without --all."""
NEVER_SHOWN = 3


@dataclass(frozen=True)
class Wanted:
    """Which jobs: ``states`` None is every state; ``recent`` is how many finished ones at most."""

    states: tuple[JobState, ...] | None
    batch: str | None
    limit: int
    recent: int


def command(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="All finished jobs too, not only the newest.")
    ] = False,
    state: Annotated[
        list[JobState],
        typer.Option("--state", metavar="STATE", help="Only queued, held, running or finished. May be repeated."),
    ] = [],  # noqa: B006
    batch: Annotated[str | None, typer.Option("--batch", metavar="BATCH", help="Only the jobs of this batch.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and show what changes; Ctrl-C ends it.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Show at most N jobs.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List what waits and runs, and the newest finished."""
    if watch and (as_json or not on_terminal()):
        raise BadInput("--watch needs a terminal, and no --json.", try_="tatin list --json, as often as you like.")
    with open_session() as session:
        named = _batch_id(session.store, batch) if batch else None
        recent = limit if everything or state or batch else RECENT
        wanted = Wanted(tuple(state) or None, named, limit, recent)
        if watch:
            _watch(session.store, session.settings, wanted)
            return
        jobs, places, left = _jobs(session.store, wanted)
        if as_json:
            counts = {str(name): count for name, count in session.store.counts().items()}
            gates = [gate.model_dump(mode="json", exclude={"id"}) for gate in session.store.gates()]
            never = impossible(jobs, live_workers(session.store))
            shown = [job_json(job, place=places.get(job.id)) | {"never": never.get(job.id)} for job in jobs]
            print_json({"jobs": shown, "counts": counts, "held": gates})
        else:
            console().print(_view(session.store, session.settings, jobs, places, left))


def _batch_id(store: Store, prefix: str) -> str:
    found = store.resolve_any(prefix)
    if not isinstance(found, Batch):
        raise BadInput(f"'{found.id}' is a job, not a batch.", try_=f"tatin list --batch {found.batch}")
    return found.id


def _jobs(store: Store, wanted: Wanted) -> tuple[list[Job], dict[str, int], str]:
    """(the jobs, the places in line of the queued, what was left off in words). Unfinished first, as they will run;
    then the newest finished."""
    states = wanted.states or tuple(JobState)
    if wanted.batch:
        jobs = [job for job in store.jobs(store.batch(wanted.batch).jobs) if job.state in states]
        counts = Counter(job.state for job in jobs)
    else:
        jobs = [job for state in states for job in _of_state(store, state, wanted)]
        counts = Counter(store.counts())
    jobs, places = _in_order(store, jobs)
    shown = jobs[: wanted.limit]
    counts.subtract(job.state for job in shown)
    left = [f"{counts[state]} more {state}" for state in states if counts[state] > 0 and _told(state, wanted)]
    return shown, places, ", ".join(left)


def _told(state: JobState, wanted: Wanted) -> bool:
    """Finished jobs are always many more, and only the newest were asked for."""
    return state is not JobState.FINISHED or wanted.recent == wanted.limit


def _of_state(store: Store, state: JobState, wanted: Wanted) -> list[Job]:
    """Of the queued those that run next; of the others the newest."""
    if state is JobState.QUEUED:
        return store.first_in_line(wanted.limit)
    limit = min(wanted.recent, wanted.limit) if state is JobState.FINISHED else wanted.limit
    return store.list_jobs(states=[state], limit=limit)


def _in_order(store: Store, jobs: list[Job]) -> tuple[list[Job], dict[str, int]]:
    """The jobs sorted, and the places of the queued."""
    order = [JobState.RUNNING, JobState.QUEUED, JobState.HELD, JobState.FINISHED]
    places = _places(store, jobs)
    jobs.sort(key=lambda job: (order.index(job.state), places.get(job.id, 0), -job.spec.priority, job.created_at))
    done = [job for job in jobs if job.state is JobState.FINISHED]
    done.sort(key=lambda job: job.finished_at or job.created_at, reverse=True)
    return [*(job for job in jobs if job.state is not JobState.FINISHED), *done], places


def _places(store: Store, jobs: list[Job]) -> dict[str, int]:
    queued = (job.id for job in jobs if job.state is JobState.QUEUED)
    return {job_id: place for job_id in queued if (place := store.place_in_line(job_id)) is not None}


def _view(
    store: Store, settings: Settings, jobs: list[Job], places: Mapping[str, int], left: str, height: int | None = None
) -> Group:
    """``left``: what was left off. ``height``: lines of the screen; the jobs that it has no room for are counted, as
    the last lines say the most."""
    from rich.console import Group
    from rich.text import Text

    footer = Text(_footer(store, settings), style="dim")
    notes = [Text(f"... {left}; --limit N shows more", style="dim")] if left else []
    notes += [Text(line, style="yellow") for line in _notes(store, jobs)]
    room = len(jobs) if height is None else max(1, height - len(notes) - 4)  # header, count, footer, the cursor's line
    if len(jobs) > room:
        notes.insert(0, Text(f"... {len(jobs) - room} more", style="dim"))
    return Group(jobs_table(jobs[:room], places, now()), *notes, footer) if jobs else Group(*notes, footer)


def _notes(store: Store, jobs: list[Job]) -> list[str]:
    """What holds many jobs at once, and what can never run here (F46)."""
    lines = []
    for gate in store.gates():
        until = f" until {local(gate.until)}" if gate.until else ""
        lines.append(
            f"◐ {gate.kind} {clean_line(gate.name)} is held{until}: {clean_line(gate.message)}".replace("  ", " ")
        )
    workers = live_workers(store)
    lines += [f"! {line}" for line in take_nothing(workers)]
    never = impossible(jobs, workers)
    lines += [f"! {job_id}: {why}" for job_id, why in list(never.items())[:NEVER_SHOWN]]
    if len(never) > NEVER_SHOWN:
        lines.append(f"! and {len(never) - NEVER_SHOWN} more that no worker can take")
    return lines


def impossible(jobs: Sequence[Job], workers: Sequence[WorkerInfo]) -> dict[str, str]:
    """Id -> why no worker that runs now can ever take it, of the queued among these jobs."""
    why = {need: why_never(need, workers) for need in {job.need for job in jobs if job.state is JobState.QUEUED}}
    found = ((job.id, why[job.need]) for job in jobs if job.state is JobState.QUEUED)
    return {job_id: reason for job_id, reason in found if reason}


def _footer(store: Store, settings: Settings) -> str:
    counts = store.counts()
    said = ", ".join(f"{counts[state]} {state}" for state in JobState)
    workers = live_workers(store)
    if not workers:
        return f"{said}; no worker is running; start `tatin worker`"
    _, most = at_once_range([default_need(settings)], workers)
    names = f"{len(workers)} worker{'' if len(workers) == 1 else 's'}"
    return f"{said}; {names}, {most} of the default job run at once"


def _watch(store: Store, settings: Settings, wanted: Wanted) -> None:
    from rich.live import Live

    cursor = "$"
    screen = console()
    with Live(console=screen, auto_refresh=False, screen=False, vertical_overflow="ellipsis") as live:
        try:
            while True:
                jobs, places, left = _jobs(store, wanted)
                live.update(_view(store, settings, jobs, places, left, screen.height), refresh=True)
                cursor, _ = store.changes(cursor, REFRESH_SECONDS)
        except KeyboardInterrupt:
            return
