"""What `tatin run` and `tatin logs` show of a job: its agent's events as lines, and what else it printed as it is."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from rich.console import Console

from tatin_jobs.cli.live_view import LiveView, _JobLog
from tatin_jobs.cli.log_view import LogPrinter
from tatin_jobs.models import Job, LogChunk
from tests.support.records import make_job


class Shown:
    """A view that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, job: Job, text: str, style: str = "") -> None:
        self.lines.append(text)


def chunks() -> list[LogChunk]:
    call = {"kind": "tool_call", "text": "make test", "data": {"name": "Bash", "id": "1"}}
    said = {"kind": "message", "text": "It works."}
    events = b"".join(json.dumps(event).encode() + b"\n" for event in (call, said))
    return [
        LogChunk(cursor="1", attempt=1, stream="stdout", data=b"setup says "),
        LogChunk(cursor="2", attempt=1, stream="stdout", data=b"so\n"),
        LogChunk(cursor="3", attempt=1, stream="event", data=b'cut off"}\n' + events[:40]),
        LogChunk(cursor="4", attempt=1, stream="event", data=events[40:]),
        LogChunk(cursor="5", attempt=1, stream="tatin", data=b"a notice\n"),
    ]


def test_a_job_of_many_shows_events_as_lines() -> None:
    shown = Shown()
    log = _JobLog(cast("LiveView", cast("Any", shown)), make_job(tool="claude"))
    for chunk in chunks():
        log.show(chunk)
    assert shown.lines == ["setup says so", "$ Bash make test", "It works.", "tatin: a notice"]


def test_logs_of_one_job_show_events_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LogPrinter(Console(width=20))
    for chunk in chunks():
        printer.show(chunk)
    printer.close()
    assert capsys.readouterr().out == "setup says so\n$ Bash make test\nIt works.\ntatin: a notice\n"
