"""``matrix``: a document becomes one document for each combination of values, as in GitHub Actions.

    matrix:
      tool: [claude, pi]                     an axis is a field of the job, as `--set` names it, and its values
      vars.level: [easy, hard]
      exclude: [{tool: pi, vars.level: hard}]    drops the combinations that hold all of these
      include: [{tool: pi, args: [--fast]}]      adds to the combinations that do not contradict it, or is one more

The number of combinations is worked out before any is made (A39).
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tatin_jobs.spec.overrides import SHORT_FORMS, Override, apply
from tatin_jobs.spec.problems import Path, Problem
from tatin_jobs.spec.yaml_nodes import Document
from tatin_jobs.terminal import clean_line

MAX_CELLS = 10_000
MAX_AXES = 16
MAX_VALUES = 1_000
"""Of one axis."""
MAX_RULES = 100
"""Of ``include`` and of ``exclude``."""
NAME_CHARACTERS = 60
_FIELD = "matrix"
_RULES = ("include", "exclude")
_NO_AXIS = ("matrix", "trials", "version", "name")


@dataclass
class Cell:
    """One combination. ``names``: each axis with its value as people see it; empty where there is no matrix."""

    document: Document
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Value:
    """A value of an axis, and where in the file it stands."""

    value: Any
    line: int | str


_Combination = dict[str, _Value]


def expand(document: Document) -> tuple[list[Cell], list[Problem]]:
    """The cells of a document, itself where it has no matrix; and what is wrong with the matrix. With anything wrong
    there is one cell, of which nothing can be missed."""
    if not isinstance(document.value, dict) or _FIELD not in document.value:
        return [Cell(document)], []
    rest = _copied(document, {key: value for key, value in document.value.items() if key != _FIELD})
    problems = list(_problems(document.value[_FIELD]))
    if problems or any(path[:1] == (_FIELD,) for path in document.broken):
        rest.sound = False
        return [Cell(rest)], problems
    cells = []
    axes = [name for name in document.value[_FIELD] if name not in _RULES]
    for combination in _combinations(document):
        cell = _copied(rest, copy.deepcopy(rest.value))
        fields = [Override(tuple(key.split(".")), found.value, found.line) for key, found in combination.items()]
        problems += apply(fields, cell)
        # What `include` adds to a combination of the axes says nothing that they do not say already.
        named = axes if all(axis in combination for axis in axes) and axes else list(combination)
        cells.append(Cell(cell, {key: value_name(key, combination[key].value) for key in named}))
    if not cells and not problems:
        problems.append(Problem((_FIELD,), "makes no combination: `exclude` drops all.", try_="exclude fewer."))
    return (cells or [Cell(rest)]), list(dict.fromkeys(problems))


def value_name(axis: str, value: object) -> str:
    """A value of an axis in one short line: a text as it is, a mapping by what its short form says."""
    if isinstance(value, dict) and axis in SHORT_FORMS:
        value = value.get(SHORT_FORMS[axis], value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clean_line(text.strip().partition("\n")[0], NAME_CHARACTERS)


def _problems(matrix: object) -> Iterator[Problem]:
    if not isinstance(matrix, dict) or not matrix:
        yield Problem((_FIELD,), "is no matrix.", try_="write {tool: [a, b], model: [c, d]}.")
        return
    axes = {name: values for name, values in matrix.items() if name not in _RULES}
    if len(axes) > MAX_AXES:
        yield Problem((_FIELD,), f"has more than {MAX_AXES} axes.")
    for name, values in axes.items():
        yield from _axis_problems(name, values)
    for name in _RULES:
        yield from _rule_problems(name, matrix.get(name, []))
    count = math.prod(len(values) for values in axes.values() if isinstance(values, list))
    if count > MAX_CELLS:
        yield Problem((_FIELD,), f"makes {count:,} combinations; {MAX_CELLS:,} is the most.", try_="leave some out.")


def _axis_problems(name: str, values: object) -> Iterator[Problem]:
    path = (_FIELD, name)
    yield from _name_problems(path, name)
    if not isinstance(values, list) or not values:
        yield Problem(path, "is no list of values.", try_="write [a, b].")
    elif len(values) > MAX_VALUES:
        yield Problem(path, f"has more than {MAX_VALUES:,} values.")
    elif any(value in values[:index] for index, value in enumerate(values)):
        yield Problem(path, "has the same value twice.", try_="for repeats, write `trials: 2`.")


def _rule_problems(name: str, rules: object) -> Iterator[Problem]:
    path: Path = (_FIELD, name)
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and rule for rule in rules):
        yield Problem(path, "is no list of combinations.", try_="write [{tool: a, model: c}].")
    elif len(rules) > MAX_RULES:
        yield Problem(path, f"has more than {MAX_RULES} items.")
    else:
        for index, rule in enumerate(rules):
            for key in rule:
                yield from _name_problems((*path, index, key), key)


def _name_problems(path: Path, name: str) -> Iterator[Problem]:
    if name.split(".")[0] in _NO_AXIS or not all(name.split(".")):
        yield Problem(path, "cannot differ between the jobs of a matrix.", try_="name a field, as tool or vars.level.")


def _combinations(document: Document) -> list[_Combination]:
    """In the order of the file, the last axis turning fastest; what ``include`` adds comes last."""
    matrix = document.value[_FIELD]
    axes = {name: _values(document, name, values) for name, values in matrix.items() if name not in _RULES}
    made = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []
    excluded = matrix.get("exclude", [])
    made = [one for one in made if not any(_holds(one, rule) for rule in excluded)]
    return _include(made, axes, [_rule(document, index, rule) for index, rule in enumerate(matrix.get("include", []))])


def _include(made: list[_Combination], axes: Mapping[str, object], rules: Sequence[_Combination]) -> list[_Combination]:
    """As GitHub has it: a rule is added to every combination of which it contradicts no axis; later rules win over
    earlier ones. A rule that fits none is a combination of its own, to which nothing is added."""
    more = []
    for rule in rules:
        fitting = [one for one in made if all(one[axis].value == rule[axis].value for axis in axes if axis in rule)]
        for one in fitting:
            one.update({key: value for key, value in rule.items() if key not in axes})
        if not fitting:
            more.append(dict(rule))
    return made + more


def _holds(combination: _Combination, rule: Mapping[str, Any]) -> bool:
    return all(axis in combination and combination[axis].value == value for axis, value in rule.items())


def _values(document: Document, axis: str, values: Sequence[Any]) -> list[_Value]:
    return [_Value(value, document.line_of((_FIELD, axis, index))) for index, value in enumerate(values)]


def _rule(document: Document, index: int, rule: Mapping[str, Any]) -> _Combination:
    return {axis: _Value(value, document.line_of((_FIELD, "include", index, axis))) for axis, value in rule.items()}


def _copied(document: Document, value: Any) -> Document:
    return Document(
        value,
        document.line,
        dict(document.lines),
        dict(document.templates),
        set(document.broken),
        document.sound,
    )
