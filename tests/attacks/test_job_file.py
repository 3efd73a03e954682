"""Job files made to break their reader: one clear complaint with its line, in bounded time, and nothing kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tatin_jobs.errors import BadJobFile
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder


@pytest.fixture
def jobs(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path)


def _refused(jobs: JobFolder, text: str | bytes) -> BadJobFile:
    with pytest.raises(BadJobFile) as refused:
        jobs.read(jobs.write(text))
    assert list(jobs.blobs.folder.iterdir()) == [], "nothing was kept"
    assert all(complaint.message for complaint in refused.value.complaints)
    return refused.value


ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        ALIAS_BOMB,
        "\n".join(f"key{number}: 1" for number in range(20_000)),
        "[" * 10_000,
        "- " * 5_000 + "x",
        f"priority: {'9' * 5_000}",
        "a: &a [*a]",
        "a: *missing",
        "? [a, b]\n: c",
    ],
    ids=["aliases", "keys", "flow-depth", "block-depth", "digits", "itself", "missing-alias", "list-as-key"],
)
def test_a30_what_grows_without_bound_is_refused(jobs: JobFolder, text: str) -> None:
    """A30."""
    _refused(jobs, text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("setup: !!python/object/apply:os.system [id]", "tag"),
        ("setup: !!str x", "tag"),
        ("<<: {setup: x}", "merge"),
        ("command: again", "line 2 already"),
        ("priority: .nan", "number"),
        ("priority: .inf", "number"),
    ],
)
def test_a31_what_yaml_can_do_beside_data_is_refused_with_its_line(jobs: JobFolder, line: str, words: str) -> None:
    """A31."""
    refused = _refused(jobs, MINIMAL + line)
    assert words in str(refused)
    assert {complaint.line for complaint in refused.complaints} & {2, 3}


def test_a31_an_older_yaml_is_not_asked_for(jobs: JobFolder) -> None:
    """A31: 1.1 turns `no` into false."""
    _refused(jobs, "%YAML 1.1\n---\n" + MINIMAL)
    assert jobs.field("setup: no").setup == "no"
    assert jobs.field("labels: {since: 2026-01-02}").labels == {"since": "2026-01-02"}


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"repo: \0", b"\x80abc", b"{", b"", b"\n# nothing\n", b"- a\n- b\n", b"text"]
)
def test_a30_a31_what_is_no_job_file_is_one_complaint(jobs: JobFolder, data: bytes) -> None:
    assert len(_refused(jobs, data).complaints) == 1


NAMES = [
    "a/b",
    "..",
    ".",
    "-x",
    "x-",
    "a:b",
    "*",
    "{a}",
    "A",
    "a b",
    "a\u202eb",
    "a\\x1b",
    "a\nb",
    "x" * 41,
    "x" * 10_000,
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a33_a_name_that_could_reach_a_path_or_a_key_is_refused(jobs: JobFolder, name: str) -> None:
    """A33."""
    refused = _refused(jobs, MINIMAL + f'name: "{name}"'.replace("\n", "\\n"))
    assert {complaint.field for complaint in refused.complaints} == {"name"}
    assert len(str(refused)) < 1000
    assert "\u202e" not in str(refused)


@pytest.mark.parametrize("prompt", ["'\"`$(id)`\n\\ ${x", "$(touch /tmp/x)", "\u202e\U0001f600", "x" * 1_000_000])
def test_a34_a_prompt_comes_through_byte_for_byte(jobs: JobFolder, prompt: str) -> None:
    """A34."""
    jobs.write(prompt, "prompt.txt")
    spec = jobs.field("prompt_file: prompt.txt")
    kept = spec.prompt if spec.prompt is not None else jobs.blobs.read(spec.prompt_blob or "").decode()
    assert kept == prompt


def test_a34_a_prompt_with_nul_is_refused(jobs: JobFolder) -> None:
    """A34."""
    assert "prompt" in str(_refused(jobs, MINIMAL + 'prompt: "a\\0b"'))


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link", "~/.ssh/id_rsa", "missing", "."])
def test_a37_inputs_stay_beside_the_job_file(jobs: JobFolder, path: str) -> None:
    """A37: also through a link."""
    (jobs.root / "secret").write_text("secret")
    (jobs.folder / "link").symlink_to(jobs.root / "secret")
    assert "secret" not in str(_refused(jobs, MINIMAL + f"inputs: ['{path}']")).replace("../secret", "")


@pytest.mark.parametrize(
    "line",
    [
        *("timeout: 10000d", "timeout: 0s", "timeout: -1h", "timeout: 5", "idle_timeout: 1y"),
        *(
            "resources: {memory: 8GiB; x}",
            "resources: {memory: 8}",
            "resources: {cpus: 1000000}",
            "resources: {cpus: 0}",
        ),
        *("priority: 1001", "retries: {max: 1000}", "trials: 1000000000", "not_before: 25:00"),
    ],
)
def test_a39_numbers_beyond_reason_are_refused(jobs: JobFolder, line: str) -> None:
    """A39."""
    assert len(_refused(jobs, MINIMAL + line).complaints) == 1


@pytest.mark.parametrize("line", ["on_failure: rm -rf ~", "notify: [sh, -c, x]", "hooks: {after: x}"])
def test_a38_a_job_names_no_command_of_the_host(jobs: JobFolder, line: str) -> None:
    """A38: what it may name (setup, verify, command) runs in the guest."""
    assert "is no field of a job file" in str(_refused(jobs, f"{MINIMAL}{line}\n"))


@pytest.mark.parametrize(
    "repo",
    [
        *("--upload-pack=evil", "-cx=y", "ext::sh -c evil", "fd::17", "file:///etc", "ssh://-oProxyCommand=evil/x"),
        *("https://user:hunter2@example.com/a.git", "https://hunter2@example.com/a.git"),
    ],
)
def test_a20_a21_a22_a_repository_is_no_way_to_run_a_program_or_to_keep_a_password(jobs: JobFolder, repo: str) -> None:
    """A20, A21, A22."""
    assert "hunter2" not in str(_refused(jobs, f"repo: '{repo}'\ncommand: x"))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@`?,\n \t0.~<$\\\u202e\x1b"), max_size=60))
def test_a30_a31_any_text_is_a_job_or_a_complaint(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """A30, A31: nothing else comes out of the reader."""
    jobs = JobFolder(tmp_path_factory.mktemp("any"))
    complaint = ""
    try:
        jobs.read(jobs.write(MINIMAL + text))
    except BadJobFile as refused:
        complaint = str(refused)
    assert "\x1b" not in complaint
    assert "\u202e" not in complaint
