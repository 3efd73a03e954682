"""The command line as a whole: every command is there, documented, fast to start, and ends with a known code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from tatin_jobs import cli
from tatin_jobs.cli import COMMANDS, app, error_json, main
from tatin_jobs.errors import AmbiguousId, BadJobFile, Complaint, StoreUnavailable, TatinError

DOCS = (Path(__file__).parents[4] / "docs" / "cli.md").read_text()
HEAVY = ("pydantic", "redis", "rich", "huey", "worker", "psutil", "ruamel")


def command(name: str) -> Any:
    group = typer.main.get_command(app)
    return group.get_command(None, name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_is_documented(name: str) -> None:
    section = DOCS.partition(f"\n### tatin {name}")[2].partition("\n##")[0]
    assert section, f"docs/cli.md has no section on {name}"
    assert command(name).help
    for parameter in command(name).params:
        if parameter.name == "help":
            continue
        assert parameter.help, parameter.name
        shown = parameter.opts if parameter.opts[0].startswith("-") else [parameter.metavar.strip("[].")]
        for option in shown:
            assert option in section, f"docs/cli.md does not name {option} of {name}"


def test_every_exit_code_is_documented() -> None:
    table = DOCS.partition("## Exit codes")[2].partition("\n## ")[0]
    for code in (0, 1, 2, 3, 75, 124, 130):
        assert f"| {code} |" in table


@pytest.mark.parametrize(
    ("error", "code"), [(TatinError("x"), 1), (AmbiguousId("x"), 2), (StoreUnavailable("x", seen="y", try_="z"), 3)]
)
def test_an_error_ends_with_its_code_and_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: TatinError, code: int
) -> None:
    monkeypatch.setattr("tatin_jobs.cli.version.command", _raising(error))
    monkeypatch.delenv("TATIN_DEBUG", raising=False)
    assert main(["version"]) == code
    shown = capsys.readouterr()
    assert shown.err == f"{error}\n"
    assert shown.out == ""


def test_a_fault_of_ours_is_no_traceback_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tatin_jobs.cli.version.command", _raising(RuntimeError("\x1b[2Jboom")))
    monkeypatch.delenv("TATIN_DEBUG", raising=False)
    assert main(["version"]) == 1
    shown = capsys.readouterr().err
    assert "RuntimeError: boom" in shown
    assert "Traceback" not in shown
    monkeypatch.setenv("TATIN_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["version"])


def test_ctrl_c_is_130_and_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tatin_jobs.cli.version.command", _raising(KeyboardInterrupt()))
    assert main(["version"]) == 130
    assert capsys.readouterr().err == ""


def test_a_bad_job_file_lists_each_complaint_in_json() -> None:
    complaint = Complaint("a.yaml", 3, "tool", "is unknown.", value="clod", try_="claude")
    fields = error_json(BadJobFile([complaint]))["error"]
    assert fields["complaints"] == [
        {"file": "a.yaml", "line": 3, "field": "tool", "message": "is unknown.", "value": "clod", "try": "claude"}
    ]
    assert fields["exit_code"] == 2


def test_a_misspelt_command_is_told_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lst"]) == 2
    assert "Try: tatin list" in capsys.readouterr().err
    assert main(["lst", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["try"] == "tatin list"


def test_starting_imports_nothing_heavy() -> None:
    code = f"import sys, tatin_jobs.cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    root = Path(cli.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def _raising(error: BaseException) -> Any:
    def command() -> None:
        raise error

    return command
