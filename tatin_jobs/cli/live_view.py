"""What ``tatin run`` shows while jobs run: each step and each line of a log, with the name of its job in front."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from tatin_jobs.cli.jobs_view import ended, style
from tatin_jobs.cli.log_view import LineSplitter, follow_log
from tatin_jobs.cli.readable import EventStream, event_lines
from tatin_jobs.errors import StoreUnavailable, TatinError
from tatin_jobs.models import Job, JobEvent, LogChunk
from tatin_jobs.states import JobState
from tatin_jobs.store import Store
from tatin_jobs.terminal import clean, clean_line


class LiveView:
    """Shows these jobs. ``update`` is called with jobs that moved; the logs have a thread each while they run."""

    def __init__(self, store: Store, jobs: Sequence[Job], console: Console) -> None:
        self._store = store
        self._console = console
        self._lock = threading.Lock()
        self._labels = _labels(jobs)
        self._width = max((len(label) for label in self._labels.values()), default=0)
        self._events_seen = {job.id: 0 for job in jobs}
        self._catching_up = threading.Lock()
        self._ended: set[str] = set()
        self._stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def update(self, job: Job) -> None:
        """Show what happened to this job since the last time."""
        if job.state is JobState.FINISHED and job.id in self._threads:
            self._threads.pop(job.id).join(timeout=5)  # its last lines come before its end
        self.catch_up(job)
        if job.state is JobState.RUNNING and job.id not in self._threads:  # after the steps that led to its first line
            thread = threading.Thread(target=self._show_log, args=(job,), name=f"log-{job.id}", daemon=True)
            self._threads[job.id] = thread
            thread.start()
        if job.state is JobState.FINISHED and job.id not in self._ended:
            self._ended.add(job.id)
            self.line(job, ended(job), style(job))

    def catch_up(self, job: Job) -> None:
        """Show the steps that came since the last time; a job's log does so before each of its lines."""
        with self._catching_up:
            events = self._store.events(job.id)
            new = events[self._events_seen[job.id] :]
            self._events_seen[job.id] = len(events)
            for event in new:
                if text := _event_text(event):
                    self.line(job, text, "cyan")

    def close(self) -> None:
        """End the threads."""
        self._stop.set()
        for thread in self._threads.values():
            thread.join(timeout=5)

    def line(self, job: Job, text: str, style: str = "") -> None:
        """One cleaned line with the job's label in front."""
        with self._lock:
            head = Text(f"{self._labels[job.id]:<{self._width}} │ ", style="dim")
            self._console.print(head + Text(text, style=style), soft_wrap=True)

    def _show_log(self, job: Job) -> None:
        try:
            _JobLog(self, job).follow(self._store, self._stop)
        except TatinError as error:
            self.line(job, f"its log is not shown: {clean_line(error.what)}", "dim")


class _JobLog:
    """The log lines of one job: an agent's events as text, and what else was printed as it is."""

    def __init__(self, view: LiveView, job: Job) -> None:
        self._view = view
        self._job = job
        self._events = EventStream()
        self._lines = {stream: LineSplitter(self._line) for stream in ("stdout", "stderr")}

    def follow(self, store: Store, stop: threading.Event) -> None:
        for chunks in follow_log(store, self._job.id, follow=True, stop=stop):
            if chunks:
                with suppress(StoreUnavailable):  # then they are shown a little late
                    self._view.catch_up(self._job)
            for chunk in chunks:
                self.show(chunk)
        for lines in self._lines.values():
            lines.close()

    def show(self, chunk: LogChunk) -> None:
        """One piece."""
        if chunk.stream == "event":
            for event in self._events.feed(chunk.data):
                for line, style in event_lines(event):
                    self._view.line(self._job, line, style)
        elif chunk.stream == "tatin":
            for line in chunk.data.decode("utf-8", "replace").splitlines():
                self._view.line(self._job, f"tatin: {clean(line).strip()}", "dim")
        else:
            self._lines[chunk.stream].feed(chunk.data)

    def _line(self, line: str) -> None:
        self._view.line(self._job, line)


def _labels(jobs: Sequence[Job]) -> dict[str, str]:
    """The job's name where only one has it, else its id."""
    names = [job.spec.name for job in jobs]
    return {job.id: job.spec.name if names.count(job.spec.name) == 1 else job.id for job in jobs}


def _event_text(event: JobEvent) -> str | None:
    """One line about a move; the end of a job is told from its record."""
    detail = clean_line(event.detail)
    match event.move:
        case "claim":
            return f"● attempt {event.attempt} on {detail}"
        case "step":
            return f"● {detail}"
        case "requeue":
            return f"○ again: {detail}"
        case "reap":
            return "○ its worker died"
        case "hold":
            return "◐ held"
        case "release":
            return "○ released"
        case "overdue":
            return "its deadline has come"
        case "cancel":
            return "cancelling"
    return None
