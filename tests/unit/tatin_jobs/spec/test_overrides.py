"""``--set key=value``: what the value becomes, where it goes, and whose complaint it is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder

LONG = "repo: https://example.com/a.git\ntool: opencode\nmodel: m\nprompt_file: gone.md\nverify: make\n"


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("priority=3", "priority", 3),
        ("args=[a, 'b c']", "args", ("a", "b c")),
        ("env={A: b}", "env", {"A": "b"}),
        ("env.A=b=c", "env", {"A": "b=c"}),
        ("env.A='3'", "env", {"A": "3"}),
        ('env.A="a\\tb"', "env", {"A": "a\tb"}),
        ("setup=echo: a # b", "setup", "echo: a # b"),
        ("setup=[x", "setup", "[x"),
        ("env.A=${VAR}", "env", {"A": "v"}),
    ],
)
def test_a_value_is_a_scalar_unless_it_is_bracketed(jobs: JobFolder, override: str, field: str, expected: Any) -> None:
    jobs.environ = {"VAR": "v"}
    assert getattr(jobs.job(MINIMAL, overrides=[override]), field) == expected


def test_a_field_is_set_beside_what_a_short_form_says_and_nothing_takes_a_field_out(jobs: JobFolder) -> None:
    overrides = ["repo.ref=main", "model.provider=p", "verify.timeout=5m", "prompt_file=", "prompt=Do it: now"]
    spec = jobs.job(LONG, overrides=overrides)
    assert (spec.repo.url, spec.repo.ref) == ("https://example.com/a.git", "main")
    assert spec.model is not None
    assert (spec.model.name, spec.model.provider) == ("m", "p")
    assert spec.verify is not None
    assert (spec.verify.run, spec.verify.timeout_seconds) == ("make", 300)
    assert spec.prompt == "Do it: now"


@pytest.mark.parametrize(
    ("override", "place", "field"),
    [
        ("resources.cpus=x", "--set resources.cpus", "resources.cpus"),
        ("name.x=y", "--set name.x", ""),
        ("labels={a: b c}", "--set labels", "labels.a"),
        ("nme=x", "--set nme", "nme"),
        ("noequals", "--set", ""),
        ("a..b=x", "--set", ""),
        ("=x", "--set", ""),
        ("priority=.nan", "--set priority", ""),
        ("args=[a]]", "--set args", ""),
        ("args=[!!python/name:os.system x]", "--set args", ""),
        (f"priority={'9' * 5000}", "--set priority", ""),
        ("env.A=a\udce9", "--set env.A", ""),
    ],
)
def test_a_wrong_override_is_complained_of_by_its_name(jobs: JobFolder, override: str, place: str, field: str) -> None:
    found = jobs.complaint(f"name: x\n{MINIMAL}", overrides=[override])
    assert (found.file, found.line, found.field) == (place, None, field)


def test_a_wrong_override_is_told_once_for_all_documents(jobs: JobFolder) -> None:
    assert len(jobs.complaints(f"{MINIMAL}---\n{MINIMAL}", MINIMAL, overrides=["timeout=never"])) == 1
