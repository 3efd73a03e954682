"""A matrix and trials: which jobs come of them, in which order, and what is refused before any is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder

BASE = "repo: https://example.com/app.git\nprompt: Do it\nmodel: m\n"
TWO_BY_TWO = "matrix:\n  command: [a, b]\n  env.LEVEL: ['1', '2']\n"


def cells(jobs: JobFolder, text: str, base: str = BASE) -> list[dict[str, str]]:
    return [job.spec.cell for job in jobs.read(jobs.write(base + text))]


def test_each_combination_is_a_job_the_last_axis_turning_fastest(jobs: JobFolder) -> None:
    specs = [job.spec for job in jobs.read(jobs.write(BASE + TWO_BY_TWO))]
    assert [(spec.command, spec.env) for spec in specs] == [
        *[("a", {"LEVEL": "1"}), ("a", {"LEVEL": "2"})],
        *[("b", {"LEVEL": "1"}), ("b", {"LEVEL": "2"})],
    ]
    assert specs[1].cell == {"command": "a", "env.LEVEL": "2"}


def test_trials_run_every_cell_once_before_any_a_second_time(jobs: JobFolder) -> None:
    specs = [job.spec for job in jobs.read(jobs.write(f"{BASE}matrix: {{command: [a, b]}}\ntrials: 2\n"))]
    assert [(spec.command, spec.trial, spec.trials) for spec in specs] == [
        *[("a", 1, 2), ("b", 1, 2)],
        *[("a", 2, 2), ("b", 2, 2)],
    ]


def test_trials_need_no_matrix(jobs: JobFolder) -> None:
    specs = [job.spec for job in jobs.read(jobs.write(f"{MINIMAL}trials: 3\n"))]
    assert [(spec.trial, spec.cell) for spec in specs] == [(1, {}), (2, {}), (3, {})]


def test_exclude_drops_what_holds_all_of_a_rule(jobs: JobFolder) -> None:
    found = cells(jobs, TWO_BY_TWO + "  exclude: [{command: b, env.LEVEL: '2'}, {command: c}]\n")
    assert [tuple(cell.values()) for cell in found] == [("a", "1"), ("a", "2"), ("b", "1")]


def test_include_is_that_of_github_actions(jobs: JobFolder) -> None:
    """The example of its documentation, with our fields for its fruit, animal, color and shape."""
    text = """matrix:
  env.fruit: [apple, pear]
  env.animal: [cat, dog]
  include:
    - env.color: green
    - {env.color: pink, env.animal: cat}
    - {env.fruit: apple, env.shape: circle}
    - {env.fruit: banana}
    - {env.fruit: banana, env.animal: cat}
"""
    specs = [job.spec for job in jobs.read(jobs.write(f"{BASE}command: x\n{text}"))]
    assert [list(spec.cell.values()) for spec in specs] == [
        *(["apple", "cat"], ["apple", "dog"], ["pear", "cat"], ["pear", "dog"], ["banana"], ["banana", "cat"])
    ]
    assert [spec.env for spec in specs] == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_a_matrix_may_be_includes_only(jobs: JobFolder) -> None:
    assert cells(jobs, "matrix:\n  include: [{command: a}, {command: b}]\n") == [{"command": "a"}, {"command": "b"}]


def test_a_value_may_be_a_mapping_and_is_named_by_its_short_form(jobs: JobFolder) -> None:
    text = f"{BASE}tool: opencode\nmatrix:\n  model: [{{name: a, provider: p}}, b]\n  model.base_url: ['http://h:1']\n"
    specs = [job.spec for job in jobs.read(jobs.write(text))]
    assert [(spec.model and spec.model.name, spec.cell["model"]) for spec in specs] == [("a", "a"), ("b", "b")]
    assert [spec.model and spec.model.base_url for spec in specs] == ["http://h:1", "http://h:1"]


def test_variables_and_overrides_reach_into_a_matrix(jobs: JobFolder) -> None:
    jobs.environ = {"TOOL": "make"}
    text = f"{BASE}matrix: {{command: ['${{TOOL}} ${{x[0]}}', b]}}\n"
    specs = [job.spec for job in jobs.read(jobs.write(text), overrides=["matrix.setup=[one]"])]
    assert [(spec.command, spec.setup) for spec in specs] == [("make ${x[0]}", "one"), ("b", "one")]


@pytest.mark.parametrize(
    ("matrix", "field", "words"),
    [
        ("[a]", "matrix", "no matrix"),
        ("{}", "matrix", "no matrix"),
        ("{command: a}", "matrix.command", "no list"),
        ("{command: []}", "matrix.command", "no list"),
        ("{command: [a, a]}", "matrix.command", "same value twice"),
        ("{trials: [1, 2]}", "matrix.trials", "cannot differ"),
        ("{name: [a, b]}", "matrix.name", "cannot differ"),
        ("{command: [a], include: {command: b}}", "matrix.include", "no list of combinations"),
        ("{command: [a], exclude: [b]}", "matrix.exclude", "no list of combinations"),
        ("{command: [a], include: [{matrix: b}]}", "matrix.include[0].matrix", "cannot differ"),
        ("{command: [a], exclude: [{command: a}]}", "matrix", "drops all"),
        ("{comand: [a, b]}", "comand", "Did you mean `command`?"),
        ("{command: [a, '']}", "command", "is empty"),
        ("{resources.cpus: [1, x]}", "resources.cpus", "no whole number"),
        ("{priority.x: [1]}", "", "no place in `priority`"),
    ],
)
def test_a_wrong_matrix_is_told_once_with_its_field(jobs: JobFolder, matrix: str, field: str, words: str) -> None:
    found = jobs.complaint(f"{MINIMAL}priority: 1\nmatrix: {matrix}\n")
    assert found.field == field
    assert words in f"{found.message} {found.try_}"


def test_a_value_that_is_wrong_is_told_with_its_own_line(jobs: JobFolder) -> None:
    text = f"{MINIMAL}matrix:\n  priority:\n    - 1\n    - 5000\n  env.A: [x, y]\n"
    assert jobs.complaint(text).line == 6


def _axis(count: int) -> list[int]:
    return list(range(count))


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ({"priority": _axis(1000), "resources.cpus": _axis(1000)}, "makes 1,000,000 combinations; 10,000 is the most"),
        ({"priority": _axis(1001)}, "has more than 1,000 values"),
        ({f"env.A{n}": [0, 1] for n in range(17)}, "has more than 16 axes"),
        ({"priority": [1], "include": [{"priority": n} for n in range(101)]}, "has more than 100 items"),
    ],
)
def test_a39_a_matrix_has_a_size_that_is_worked_out_before_it_is_made(
    jobs: JobFolder, matrix: dict[str, Any], words: str
) -> None:
    """A39."""
    found = jobs.complaints(f"{MINIMAL}matrix: {matrix}\n")
    assert words in found[0].message


@pytest.mark.parametrize(
    ("trials", "words"), [("1e9", "no whole number"), ("1000000000", "between 1 and 1000"), ("0", "between 1 and 1000")]
)
def test_a39_trials_have_a_limit(jobs: JobFolder, trials: str, words: str) -> None:
    """A39."""
    found = jobs.refused(f"trials: {trials}")
    assert found.field == "trials"
    assert words in found.message


def test_a39_cells_and_trials_together_have_the_limit_of_a_submit(jobs: JobFolder) -> None:
    """A39."""
    found = jobs.refused(f"trials: 1000\nmatrix: {{priority: {_axis(11)}}}")
    assert "more than 10000 jobs" in found.message
