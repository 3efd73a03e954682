"""The scripts of the scripted model, and the ways in which it fails on demand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tatin_jobs.demo.faults import ERRORS, Break, fault_for
from tatin_jobs.demo.scripts import DEMO, SCRIPTS, Turn, turn_for


def test_turn_is_chosen_by_the_number_of_tool_results() -> None:
    assert [turn_for(DEMO, ["x"] * number).call for number in range(6)] == [turn.call for turn in (*DEMO, DEMO[-1])]


def test_last_turn_of_each_script_calls_no_tool_so_that_an_agent_ends() -> None:
    assert all(script[-1].call is None and script[-1].text for script in SCRIPTS.values())


def test_result_of_the_newest_tool_is_put_into_the_text() -> None:
    assert turn_for((Turn("I saw: {result}"),), ["old", " {result} new \n"]).text == "I saw: {result} new"


@pytest.mark.needs("git")
def test_tour_is_written_from_the_files_of_the_repository(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    for name, text in {"src/a b.py": "1\n2\n", "src/c/d.py": "3\n", "déjà vu/x": "", "README.md": "# X\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "First")
    call = DEMO[2].call
    assert call is not None
    subprocess.run(["sh", "-c", call.arguments["command"]], cwd=tmp_path, check=True)
    tour = (tmp_path / "TOUR.md").read_text()
    assert "Commits: 1. The newest: First" in tour
    assert "| `src/` | 2 | 3 | 2" in tour
    assert "| `déjà vu/` | 1 | 0 | 2" in tour
    assert "README" not in tour


@pytest.mark.parametrize("name", [*ERRORS, *Break])
def test_fault_is_named_by_the_model_and_may_come_once(name: str) -> None:
    fault = fault_for(f"fail-{name}", 0)
    assert fault is not None
    assert fault_for(f"fail-{name}", 7) == fault == fault_for(f"fail-once-{name}", 0)
    assert fault_for(f"fail-once-{name}", 1) is None


@pytest.mark.parametrize("model", ["hello", "fail", "fail-", "fail-nothing", "401"])
def test_other_models_do_not_fail(model: str) -> None:
    assert fault_for(model, 0) is None
