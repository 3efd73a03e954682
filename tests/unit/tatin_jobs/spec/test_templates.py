"""Prompts from templates: what they become, and that a hostile one harms nobody (A36)."""

from __future__ import annotations

import pytest

from tatin_jobs.spec import templates
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder


def rendered(jobs: JobFolder, template: str, values: str = "{}") -> str | None:
    jobs.write(template, "t.md.j2")
    return jobs.field(f"template: t.md.j2\nvars: {values}\n").prompt


def refusal(jobs: JobFolder, template: str, values: str = "{}") -> str:
    jobs.write(template, "t.md.j2")
    found = jobs.refused(f"template: t.md.j2\nvars: {values}\n")
    assert (found.field, found.line) == ("template", 3)
    return found.message


def test_a_template_is_rendered_with_its_values(jobs: JobFolder) -> None:
    text = "Fix {{ issue }}.\n{% for name in names %}\n- {{ name }}\n{% endfor %}\n{% if strict %}Test it.{% endif %}"
    assert rendered(jobs, text, "{issue: 12, names: [é, b], strict: true}") == "Fix 12.\n- é\n- b\nTest it."


def test_a36_values_are_data(jobs: JobFolder) -> None:
    """A36."""
    assert rendered(jobs, "<{{ a }}>", "{a: '{{ 7 * 7 }}{% raw %}'}") == "<{{ 7 * 7 }}{% raw %}>"


def test_a_matrix_over_values_makes_a_prompt_each(jobs: JobFolder) -> None:
    jobs.write("Fix {{ issue }} {{ how }}", "t.md.j2")
    text = f"{MINIMAL}template: t.md.j2\nvars: {{how: fast}}\nmatrix: {{vars.issue: [1, 2]}}\ntrials: 2\n"
    found = [(job.spec.prompt, job.spec.prompt_name) for job in jobs.read(jobs.write(text))]
    assert found == [(f"Fix {issue} fast", "t.md.j2") for issue in (1, 2, 1, 2)]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ gone }}", "'gone' is undefined"),
        ("{{ a.gone }}", "has no attribute 'gone'"),
        ("x\n{% if %}", "is no template: line 2: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ lipsum.__globals__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{{ '{0.__class__}'.format(a) }}", "unsafe"),
        ("{{ a.update(b=1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ range(10 ** 9) }}", "range"),
        ("{{ 'x' * 782000000 }}", "takes too much memory"),
        ("{{ 'x' * 5000000 }}", "too long"),
        ("{# nothing #}", "empty prompt"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    ],
)
def test_a36_a_template_that_does_not_do_is_refused(jobs: JobFolder, template: str, words: str) -> None:
    """A36."""
    assert words in refusal(jobs, template, "{a: {}}")


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ (9 ** 99999999) % 7 }}",
    ],
)
def test_a36_a_template_that_never_ends_is_ended(
    jobs: JobFolder, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """A36; the good one before it is not to blame."""
    monkeypatch.setattr(templates, "CPU_SECONDS", 1)
    jobs.write("good", "good.j2")
    jobs.write(template, "bad.j2")
    found = jobs.complaints(f"{MINIMAL}template: good.j2\n---\n{MINIMAL}template: bad.j2\n")
    assert [(one.line, one.message) for one in found] == [(7, "takes more time or memory than a template may.")]


def test_a36_a39_what_the_templates_of_a_matrix_make_in_all_is_bounded(
    jobs: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A36, A39: each prompt may be long, and ten thousand of them must not fill the memory."""
    monkeypatch.setattr(templates, "TOTAL_BYTES", 3000)
    jobs.write("{{ 'x' * 800 }}{{ a }}", "t.j2")
    assert len(jobs.read(jobs.write(f"{MINIMAL}template: t.j2\nmatrix: {{vars.a: [1, 2, 3]}}\n"))) == 3
    found = jobs.complaints(f"{MINIMAL}template: t.j2\nmatrix: {{vars.a: [1, 2, 3, 4]}}\n")
    assert [(one.field, one.message) for one in found] == [
        ("template", "takes more time or memory than a template may.")
    ]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("template: gone.j2", "template", "does not exist"),
        ("template: ../gone.j2", "template", "does not exist"),
        ("vars: {a: 1}", "vars", "goes only with `template`"),
        ("prompt: a\ntemplate: t.j2", "template", "stands beside `prompt`"),
        ("template: t.j2\nvars: [a]", "vars", "is not a mapping"),
        ("template: t.j2\nvars: {a-b: 1}", "vars", "a-b, which a template cannot use"),
        ("template: t.j2\nvars: {_a: 1}", "vars", "_a, which a template cannot use"),
        ("template: t.j2\nvars: {a: null}", "vars.a", "has no value"),
    ],
)
def test_what_a_template_does_not_take(jobs: JobFolder, text: str, field: str, words: str) -> None:
    jobs.write("x", "t.j2")
    found = jobs.refused(f"{text}\n")
    assert found.field == field
    assert words in found.message
