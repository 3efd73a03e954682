"""``--set key=value``: one field set in every job of a submit, before anything is checked.

The key is dotted (``resources.cpus``). The value is a plain scalar as in YAML, or, in quotes, brackets or braces, what
YAML reads there; nothing at all leaves the field out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tatin_jobs.spec.problems import FieldError, Path, Problem, dotted, shown
from tatin_jobs.spec.scalars import plain_value
from tatin_jobs.spec.yaml_nodes import MAX_DEPTH, Document, read_documents, text_problem

SHORT_FORMS = {"repo": "url", "model": "name", "verify": "run", "network": "mode"}
"""Field that may be written as one text -> the key that the text stands for."""

_PAIRS = {"[": "]", "{": "}", '"': '"', "'": "'"}


@dataclass(frozen=True)
class Override:
    """``path`` is set to ``value``; None takes the field out."""

    path: tuple[str, ...]
    value: Any
    source: int | str
    """Where it comes from, for complaints: a line of the file, or what stands in place of file and line."""


def read_overrides(texts: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """The overrides that can be read, and what is wrong with the others."""
    overrides: list[Override] = []
    problems: list[Problem] = []
    for text in texts:
        key, equals, value = text.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path) or len(path) > MAX_DEPTH:
            what = "is not `key=value`."
            problems.append(Problem((), what, shown(key), "write it as resources.cpus=2.", "--set"))
            continue
        try:
            overrides.append(Override(path, _value(value), f"--set {dotted(path)}"))
        except FieldError as error:
            problems.append(Problem((), error.message, shown(value), error.try_, f"--set {dotted(path)}"))
    return overrides, problems


def apply(overrides: Sequence[Override], document: Document) -> list[Problem]:
    """Set each in ``document``; returns those that it has no place for."""
    return [problem for override in overrides if (problem := _apply(override, document))]


def _apply(override: Override, document: Document) -> Problem | None:
    place = document.value
    if not isinstance(place, dict):
        return None  # that it is no mapping is complained of elsewhere
    *parents, last = override.path
    for depth, key in enumerate(parents):
        inner = place.setdefault(key, {})
        if isinstance(inner, str) and depth == 0 and key in SHORT_FORMS:
            inner = place[key] = {SHORT_FORMS[key]: inner}
            document.lines[key, SHORT_FORMS[key]] = document.line_of((key,))
        if not isinstance(inner, dict):
            what = f"has no place in `{dotted(override.path[: depth + 1])}`, which is not a mapping there."
            return Problem((), what, dotted(override.path), line=override.source)
        place = inner
    if override.value is None:
        place.pop(last, None)
        return None
    place[last] = copy.deepcopy(override.value)
    _mark(override, document)
    return None


def _mark(override: Override, document: Document) -> None:
    """What it set, and what it made on the way, comes from it; the lines of what stood there are gone."""
    path: Path = override.path
    for known in [known for known in document.lines if known[: len(path)] == path]:
        del document.lines[known]
    for end in range(1, len(path)):
        document.lines.setdefault(path[:end], override.source)
    document.lines[path] = override.source


def _value(text: str) -> Any:
    if problem := text_problem(text):
        raise FieldError(problem)
    text = text.strip()
    if len(text) < 2 or _PAIRS.get(text[0]) != text[-1]:
        return plain_value(text)
    documents, problems = read_documents(text)
    if problems or len(documents) != 1:
        what = problems[0].message if problems else "is more than one value."
        raise FieldError(what, "put a text that begins like this into quotes of its own.")
    return documents[0].value
