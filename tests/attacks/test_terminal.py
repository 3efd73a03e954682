"""Hostile text on its way to a person's terminal: logs, names, messages, tables (A80, A81)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tatin_jobs.cli import main
from tatin_jobs.cli.jobs_view import jobs_table
from tatin_jobs.cli.log_view import LogPrinter
from tatin_jobs.cli.readable import event_lines
from tatin_jobs.models import LogChunk
from tatin_jobs.reports import make_report, report_text
from tatin_jobs.states import JobState, Outcome, Reason
from tatin_jobs.store import Store
from tests.support.cli import NOW, make_job, on_terminal, open_queue

HOSTILE = (
    "\x1b]0;title\x07 \x1b]52;c;aGk=\x07 \x1b[2J\x1b[1A \x9b31m \x1bP$q\x1b\\ \r over \u202e\u2066 \u200b\x08\x7f"
    " \ud800 [red]x[/red] [link=file:///etc] [/nothing] :bomb:"
)


def assert_harmless(shown: str) -> None:
    """Nothing but printable characters, newlines, and rich's own colours."""
    rest = shown.replace("\r\n", "\n")
    for sequence in ("\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[1m"):
        rest = rest.replace(sequence, "")
    bad = [char for char in rest if not char.isprintable() and char not in "\n\t"]
    assert not bad, bad


def test_a80_a_table_passes_no_control_on() -> None:
    """A80, A81: rich passes ESC in every mode, and raises on a closing tag that it takes for markup."""
    job = make_job(
        tool=HOSTILE,
        state=JobState.FINISHED,
        outcome=Outcome.FAILED,
        reason=Reason.AGENT,
        worker=HOSTILE,
        message=HOSTILE,
    )
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=500).print(jobs_table([job], {}, NOW))
    assert_harmless(out.getvalue())
    marked = make_job(tool="[red]x[/red][/y]", worker="[link=file:///etc]x")
    console = Console(file=(plain := io.StringIO()), width=500)
    console.print(jobs_table([marked], {}, NOW))
    assert "[red]x[/red][/y]" in plain.getvalue()


def test_a80_a_live_log_passes_no_control_on(capsys: pytest.CaptureFixture[str]) -> None:
    """A80: also when a sequence comes in two pieces, and in a line that claims to be ours."""
    printer = LogPrinter(Console(markup=True, width=200))
    data = HOSTILE.encode("utf-8", "surrogatepass")
    event = {"kind": "message", "text": HOSTILE}
    printer.show(LogChunk(cursor="1", attempt=1, stream="event", data=json.dumps(event).encode() + b"\n"))
    for stream in ("stdout", "stderr", "tatin"):
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            printer.show(LogChunk(cursor="1", attempt=1, stream=stream, data=half))
    printer.close()
    shown = capsys.readouterr().out
    assert_harmless(shown)
    assert "[/nothing]" in shown


def test_a80_events_and_reports_pass_no_control_on() -> None:
    """A80."""
    for kind in ("message", "reasoning", "error", "retry", "tool_call", "tool_result"):
        lines = event_lines({"kind": kind, "text": HOSTILE, "data": {"name": HOSTILE}})
        assert_harmless("\n".join(line for line, _ in lines))
    job = make_job(state=JobState.FINISHED, outcome=Outcome.FAILED, reason=Reason.AGENT, message=HOSTILE)
    assert_harmless(report_text(make_report([job], title="x", now=NOW)))


def test_a80_an_error_shows_what_was_typed_without_obeying_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A80: arguments come from shell history and scripts, too."""
    for arguments in (["\x1b]0;x\x07"], ["list", "--\x1b]0;x\x07"], ["drain", "\u202ex", "y\x1b"]):
        assert main(arguments) == 2
        assert_harmless(capsys.readouterr().err)


@pytest.mark.needs("valkey")
@pytest.mark.parametrize("arguments", [["list", "--all"], ["show", "fix"], ["report"], ["wait", "fix"], ["workers"]])
def test_a80_a_terminal_gets_nothing_hostile_from_any_view(tmp_path: Path, arguments: list[str]) -> None:
    """A80, A81: the whole way, from records in the store to a terminal."""
    text = HOSTILE.replace("\ud800", "")  # no UTF-8 has it, so no record can
    with open_queue(tmp_path) as queue:
        queue.submit(make_job(tool=text, prompt=text, env={"X": text}))
        queue.announce(problem=text)
        queue.store.finish(queue.claim(), Outcome.FAILED, Reason.AGENT, text)
        assert isinstance(queue.store, Store)
        shown = on_terminal(tmp_path, *arguments, COLUMNS="400").decode()
    assert_harmless(shown)
    assert "[/nothing]" in shown or "…" in shown
