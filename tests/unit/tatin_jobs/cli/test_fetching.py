"""Copying results: regular files and folders, and through no link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tatin_jobs.cli.fetching import fetch
from tatin_jobs.errors import BadInput
from tatin_jobs.results import write_result
from tests.support.cli import make_job, make_result

JOB = make_job()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "attempt-1"
    (folder / "artifacts" / "deep").mkdir(parents=True)
    (folder / "artifacts" / "deep" / "out.txt").write_text("made")
    write_result(folder, make_result(JOB))
    return folder


def test_all_files_come_and_a_second_time_replaces_them(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    assert fetch(source, target, JOB.id) == 2
    (source / "artifacts" / "deep" / "out.txt").write_text("made again")
    assert fetch(source, target, JOB.id) == 2
    assert (target / "artifacts" / "deep" / "out.txt").read_text() == "made again"
    assert sorted(os.listdir(target)) == ["artifacts", "result.json"]


def test_links_and_pipes_are_left_out(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (source / "link").symlink_to(tmp_path / "secret")
    (source / "folder").symlink_to(tmp_path)
    os.mkfifo(source / "pipe")
    fetch(source, tmp_path / "out", JOB.id)
    assert sorted(os.listdir(tmp_path / "out")) == ["artifacts", "result.json"]


def test_a_link_in_the_target_is_not_written_through(source: Path, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    for folder in (outside, target):
        folder.mkdir()
    (target / "artifacts").symlink_to(outside)
    with pytest.raises(BadInput):
        fetch(source, target, JOB.id, force=True)
    assert os.listdir(outside) == []
    (target / "artifacts").unlink()
    (outside / "kept").write_text("kept")
    (target / "result.json").symlink_to(outside / "kept")
    fetch(source, target, JOB.id, force=True)
    assert (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize("theirs", ["notes.txt", "result.json"])
def test_a_folder_with_something_else_in_it_is_refused(source: Path, tmp_path: Path, theirs: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    write_result(target, make_result(make_job("other"))) if theirs == "result.json" else (target / theirs).touch()
    with pytest.raises(BadInput, match="is not empty"):
        fetch(source, target, JOB.id)
    assert os.listdir(target) == [theirs]
