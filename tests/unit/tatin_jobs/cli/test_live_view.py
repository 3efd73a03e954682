"""What `tatin run` shows of a job whose tool prints events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from tatin_jobs.cli.live_view import LiveView, _JobLog
from tatin_jobs.home import Home
from tatin_jobs.models import Job
from tests.support.records import make_job

LONG_EVENT = json.dumps({"type": "tool", "text": "x" * 9000})


class Shown:
    """A view that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, job: Job, text: str, style: str = "") -> None:
        self.lines.append(text)


@pytest.mark.parametrize(
    ("tool", "expected"),
    [("opencode", ["setup says so", "verify says so"]), ("command", None)],
)
def test_a_tools_events_are_not_shown_as_the_json_that_they_came_in(
    tmp_path: Path, tool: str, expected: list[str] | None
) -> None:
    shown = Shown()
    log = _JobLog(cast("LiveView", cast("Any", shown)), make_job(tool=tool), Home(tmp_path))
    text = f"setup says so\n{LONG_EVENT}\n{LONG_EVENT}\nverify says so\n".encode()
    for start in range(0, len(text), 4096):
        log._lines["stdout"].feed(text[start : start + 4096])
    if expected is None:
        assert "".join(shown.lines) == text.decode().replace("\n", "")
    else:
        assert shown.lines == expected
