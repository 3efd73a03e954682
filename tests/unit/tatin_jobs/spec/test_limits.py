"""Sizes and counts that no file passes, and where files come from."""

from __future__ import annotations

import io
import os
import sys
from types import SimpleNamespace

import pytest

from tatin_jobs.errors import BadJobFile
from tatin_jobs.spec import local_files, reading, yaml_nodes
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder


def test_a_file_has_a_size_that_it_does_not_pass(jobs: JobFolder) -> None:
    most = reading.MAX_FILE_BYTES
    (job,) = jobs.read(jobs.write(MINIMAL + "#" * (most - len(MINIMAL))))
    assert job.spec.command == "make"
    assert "has more than 4.0 MiB" in jobs.complaint(MINIMAL + "#" * most).message


def test_documents_values_and_jobs_are_counted(jobs: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    two = f"{MINIMAL}---\n{MINIMAL}"
    monkeypatch.setattr(reading, "MAX_JOBS", 3)
    assert len(jobs.read(jobs.write(two))) == 2
    assert "more than 3 jobs" in jobs.complaints(two, two)[0].message
    monkeypatch.setattr(yaml_nodes, "MAX_DOCUMENTS", 1)
    assert jobs.complaint(two).line == 4
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 4)
    assert "more than 4 values" in jobs.complaint(MINIMAL).message


def test_a_long_text_that_aliases_repeat_is_refused(jobs: JobFolder) -> None:
    """A30: few values, but gigabytes."""
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]\n"
    assert "once its aliases are replaced" in jobs.complaints(MINIMAL + text)[0].message


def test_a_long_value_that_variables_repeat_is_refused(jobs: JobFolder) -> None:
    """A30, by the other way."""
    jobs.environ = {"BIG": "x" * 100_000}
    found = jobs.refused(f"setup: '{'${BIG}' * 100}'")
    assert "too large once its variables are filled in" in found.message
    assert yaml_nodes.MAX_EXPANDED_CHARACTERS < 100_000 * 100


def test_variables_are_found_in_one_pass(jobs: JobFolder) -> None:
    """A30: a search that begins anew at every `${` would not end within the test's time limit."""
    assert jobs.field(f"prompt: '{'${' * 500_000}'").prompt_blob


def test_inputs_have_a_size_in_all(jobs: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "MAX_INPUT_BYTES", 10)
    jobs.write(b"x" * 6, "a")
    jobs.write(b"x" * 6, "b")
    assert jobs.field("inputs: [a]").inputs[0].size_bytes == 6


def test_inputs_over_the_size_are_refused(jobs: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "MAX_INPUT_BYTES", 10)
    jobs.write(b"x" * 6, "a")
    jobs.write(b"x" * 6, "b")
    assert "10 B is the most" in jobs.refused("inputs: [a, b]").message


@pytest.mark.parametrize("name", ["repo/x", "Repo", "a/../b"])
def test_an_input_does_not_take_the_place_of_the_repository(jobs: JobFolder, name: str) -> None:
    jobs.write("x", name.replace("a/../", ""))
    assert jobs.refused(f"inputs: [{name}]").field == "inputs[0]"


def test_a_file_that_never_ends_is_not_read(jobs: JobFolder) -> None:
    os.mkfifo(jobs.folder / "pipe")
    found = jobs.complaints(f"{MINIMAL}prompt_file: pipe\ninputs: [pipe]\n")
    assert [text.message for text in found] == ["'pipe' is not a regular file."] * 2


def test_a_prompt_file_from_elsewhere_needs_its_absolute_path_and_is_a_warning(jobs: JobFolder) -> None:
    """A37."""
    outside = jobs.root / "prompt.md"
    outside.write_bytes(b"\xef\xbb\xbfa\r\nb \x1b\n\n")
    (jobs.folder / "link.md").symlink_to(outside)
    for name in ("../prompt.md", "link.md"):
        assert "leads out of the job file's folder" in jobs.refused(f"prompt_file: {name}").message
    (job,) = jobs.read(jobs.write(f"{MINIMAL}prompt_file: {outside}\n"))
    assert (job.spec.prompt or "").encode() == outside.read_bytes()
    assert "from outside" in job.warnings[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xfea", "is not UTF-8"), (b"a\0b", "NUL"), (b" \n", "is empty"), (b"x" * 2**22 + b"x", "4.0")],
)
def test_a_prompt_file_that_is_no_prompt_is_refused(jobs: JobFolder, data: bytes, message: str) -> None:
    """A34."""
    jobs.write(data, "prompt.md")
    assert message in jobs.refused("prompt_file: prompt.md").message


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"a: 1\nb: \xff\n", 2), (b"a: 1\n\nb: \0", 3), (b"a: 1\nb: \x07\n", 2), (b"a: 1\r\nb: 'x\r\n", 3)],
)
def test_what_cannot_be_read_is_named_with_its_line(jobs: JobFolder, data: bytes, line: int) -> None:
    assert jobs.complaint(data).line == line


def test_stdin_is_a_file_of_the_working_directory(jobs: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.write("do it", "prompt.md")
    monkeypatch.chdir(jobs.folder)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(f"{MINIMAL}prompt_file: prompt.md".encode())))
    (job,) = jobs.read("-")
    assert (job.source, job.spec.name, job.spec.prompt) == ("-", "job", "do it")


def test_a_file_that_is_not_there_does_not_hide_what_is_wrong_with_the_next(jobs: JobFolder) -> None:
    with pytest.raises(BadJobFile) as refused:
        jobs.read(str(jobs.folder / "none.yaml"), str(jobs.folder), jobs.write("x: 1"))
    assert [found.field for found in refused.value.complaints][:2] == ["", ""]
    assert "No such file" in refused.value.complaints[0].message
    assert "x" in {found.field for found in refused.value.complaints}
