"""Variables, overrides, several documents, what goes along, the schema and the words about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tatin_jobs.errors import BadJobFile
from tatin_jobs.models import INLINE_PROMPT_BYTES
from tatin_jobs.spec import job_schema
from tatin_jobs.spec.file_model import JobFile
from tatin_jobs.spec.unsupported import FIELDS
from tests.support.attempts import make_repository
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder

PROJECT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("a ${VAR} b", {"VAR": "x"}, "a x b"),
        ("${VAR:-d}", {"VAR": ""}, "d"),
        ("${VAR-d}", {"VAR": ""}, ""),
        ("${VAR:-d}", {}, "d"),
        ("${VAR-}", {}, ""),
        ("$${VAR}", {"VAR": "x"}, "${VAR}"),
        ("$VAR $(date) $$", {"VAR": "x"}, "$VAR $(date) $$"),
        ("${VAR}", {"VAR": "${OTHER}"}, "${OTHER}"),
    ],
)
def test_variables_are_filled_in_once(tmp_path: Path, text: str, environ: dict[str, str], expected: str) -> None:
    assert JobFolder(tmp_path, environ).field(f"env: {{X: '{text}'}}").env == {"X": expected}


@pytest.mark.parametrize(
    ("text", "words"),
    [("${VAR}", "VAR"), ("${VAR:?say who}", "say who"), ("${GITHUB_TOKEN}", "secret"), ("${MY_API_KEY:-x}", "secret")],
)
def test_a_variable_that_cannot_be_filled_in_is_named(tmp_path: Path, text: str, words: str) -> None:
    environ = {"GITHUB_TOKEN": "hunter2", "MY_API_KEY": "hunter2"}
    with pytest.raises(BadJobFile, match=words) as refused:
        JobFolder(tmp_path, environ).field(f"env: {{X: '{text}'}}")
    assert "hunter2" not in str(refused.value)


def test_shell_lines_keep_their_own_braces(jobs: JobFolder) -> None:
    assert jobs.field("setup: 'echo ${x%.py} ${#x} $HOME'").setup == "echo ${x%.py} ${#x} $HOME"


def test_an_override_sets_a_field_of_every_document(jobs: JobFolder) -> None:
    file = jobs.write(f"{MINIMAL}---\n{MINIMAL}resources: {{cpus: 8, memory: 1GiB}}\n")
    first, second = jobs.read(file, overrides=["resources.cpus=2", "labels={team: infra}", "model.name=m"])
    assert (first.spec.resources.cpus, second.spec.resources.cpus) == (2, 2)
    assert second.spec.resources.memory_mib == 1024
    assert first.spec.labels == {"team": "infra"}
    with pytest.raises(BadJobFile, match="--set"):
        jobs.read(file, overrides=["timeout=never"])


def test_a_long_prompt_and_inputs_become_blobs(jobs: JobFolder) -> None:
    jobs.write("x" * (INLINE_PROMPT_BYTES + 1), "prompt.txt")
    jobs.write(b"\x00data", "data/one.bin")
    spec = jobs.field("prompt_file: prompt.txt\ninputs: [data/one.bin]")
    assert spec.prompt is None
    assert len(jobs.blobs.read(spec.prompt_blob or "")) == INLINE_PROMPT_BYTES + 1
    (item,) = spec.inputs
    assert (item.name, item.size_bytes, jobs.blobs.read(item.blob)) == ("data/one.bin", 5, b"\x00data")


@pytest.mark.needs("git")
def test_a_local_repository_goes_along_and_what_does_not_is_named(jobs: JobFolder) -> None:
    make_repository(jobs.folder / "repo")
    (jobs.folder / "repo" / "new.txt").write_text("new")
    (job,) = jobs.read(jobs.write("repo: repo\ncommand: make\n"))
    assert job.spec.repo.blob
    assert jobs.blobs.path(job.spec.repo.blob).is_file()
    assert job.spec.repo.commit
    assert any("new.txt" in warning for warning in job.warnings)


@pytest.mark.needs("git")
def test_an_empty_repository_and_an_unknown_ref_are_complaints(jobs: JobFolder) -> None:
    make_repository(jobs.folder / "repo")
    (jobs.folder / "empty").mkdir()
    for repo, words in (("{path: repo, ref: nain}", "main"), ("empty", "not a git repository"), ("nowhere", "exist")):
        with pytest.raises(BadJobFile, match=words):
            jobs.read(jobs.write(f"repo: {repo}\ncommand: make\n"))


def test_the_schema_is_that_of_the_model() -> None:
    schema = job_schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == {info.alias or name for name, info in JobFile.model_fields.items()}
    assert schema["additionalProperties"] is False
    assert all("description" in field or "$ref" in field for field in properties.values())


def test_every_field_is_in_the_documentation() -> None:
    page = (PROJECT / "docs" / "job-file.md").read_text()
    fields = [info.alias or name for name, info in JobFile.model_fields.items()]
    assert [name for name in [*fields, *(".".join(path) for path in FIELDS)] if f"`{name}`" not in page] == []


@pytest.mark.needs("git")
@pytest.mark.parametrize("file", sorted(path.name for path in (PROJECT / "jobs").glob("*.yaml")))
def test_every_example_is_a_job_file(jobs: JobFolder, file: str) -> None:
    text = (PROJECT / "jobs" / file).read_text()
    make_repository(jobs.root / "repo")
    shutil.copytree(PROJECT / "jobs" / "prompts", jobs.folder / "prompts")
    for job in jobs.read(jobs.write(text.replace("repo: ..", "repo: ../repo"))):
        assert job.spec.name
        assert job.need.cpus
