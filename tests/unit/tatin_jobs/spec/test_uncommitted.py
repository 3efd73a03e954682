"""Which uncommitted files a person is told of."""

from __future__ import annotations

from pathlib import Path

from tatin_jobs.results import write_result
from tatin_jobs.spec.uncommitted import left_behind
from tests.support.cli import make_job, make_result


def test_what_goes_along_and_fetched_results_are_not_told(tmp_path: Path) -> None:
    for name in ("jobs/fix.yaml", "jobs/prompt.md", "data/in.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "work" / "fix-1" / "artifacts").mkdir(parents=True)
    (tmp_path / "work" / "fix-1" / "artifacts" / "made.txt").touch()
    write_result(tmp_path / "work" / "fix-1", make_result(make_job()))
    along = {tmp_path / name for name in ("jobs/fix.yaml", "jobs/prompt.md", "data/in.csv")}
    assert left_behind(tmp_path, ["jobs/", "data/in.csv", "work/"], along) == []
    assert left_behind(tmp_path, ["jobs/fix.yaml", "work/fix-1/", "src/a.py"], along) == ["src/a.py"]


def test_one_more_file_in_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "work" / "fix-1").mkdir(parents=True)
    write_result(tmp_path / "work" / "fix-1", make_result(make_job()))
    (tmp_path / "work" / "notes.txt").touch()
    (tmp_path / "jobs").mkdir()
    for name in ("fix.yaml", "mine.py"):
        (tmp_path / "jobs" / name).touch()
    assert left_behind(tmp_path, ["jobs/", "work/"], {tmp_path / "jobs/fix.yaml"}) == ["jobs/", "work/"]


def test_a_folder_of_very_many_files_is_not_looked_through(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    files = [tmp_path / "many" / str(number) for number in range(1200)]
    for file in files:
        file.touch()
    assert left_behind(tmp_path, ["many/"], files) == ["many/"]


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    """And none is walked through."""
    (tmp_path / "job.yaml").touch()
    (tmp_path / "link").symlink_to(tmp_path / "job.yaml")
    (tmp_path / "up").symlink_to(tmp_path)
    assert left_behind(tmp_path, ["link", "up"], {tmp_path / "job.yaml"}) == ["up"]
