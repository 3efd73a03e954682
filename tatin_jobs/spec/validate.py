"""One document -> a JobFile, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tatin_jobs.spec import file_model
from tatin_jobs.spec.file_model import JobFile
from tatin_jobs.spec.local_files import Surroundings
from tatin_jobs.spec.overrides import SHORT_FORMS
from tatin_jobs.spec.problems import FieldError, Path, Problem, nearest
from tatin_jobs.spec.rules import cross_check
from tatin_jobs.spec.unsupported import not_yet
from tatin_jobs.spec.yaml_nodes import Document

_SECTIONS: Mapping[Path, type[BaseModel]] = {
    (): JobFile,
    ("repo",): file_model.RepoFile,
    ("model",): file_model.ModelFile,
    ("verify",): file_model.VerifyFile,
    ("resources",): file_model.ResourcesFile,
    ("requires",): file_model.RequiresFile,
    ("network",): file_model.NetworkFile,
    ("budget",): file_model.BudgetFile,
    ("network", "setup"): file_model.NetworkPolicyFile,
    ("network", "verify"): file_model.NetworkPolicyFile,
    ("retries",): file_model.RetriesFile,
}
_UNSHOWN = ("env", "prompt", "setup", "command", "args")
"""Fields whose values are not repeated in complaints: they may be long, or a secret by mistake."""
_NOWHERE = object()


def validate(document: Document, around: Surroundings) -> tuple[JobFile | None, list[Problem]]:
    """The job of a document, the files that it names looked at; None when there are problems. Changes nothing."""
    job = document.value
    if not isinstance(job, dict):
        text = "is no job: a job file is a mapping of fields (`repo: ...`, `tool: ...`)."
        return None, [Problem((), text)] if document.sound else []
    problems = [*_nulls(job, ()), *cross_check(job, sound=document.sound)]
    empty = {problem.path for problem in problems}
    read = None
    try:
        read = JobFile.model_validate(_without_nulls(job), context=around)
    except ValidationError as error:
        details = [item for item in error.errors() if document.sound or item["type"] != "missing"]
        problems += [problem for item in details if (problem := _problem(item, document)).path not in empty]
    return (None if problems else read), problems


def _nulls(value: Any, path: Path) -> Iterator[Problem]:
    if value is None:
        yield Problem(path, "has no value.", try_="write one, or leave the field out.")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nulls(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nulls(item, (*path, index))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _problem(error: ErrorDetails, document: Document) -> Problem:
    path = _path(error, document.value)
    message, try_ = _words(error, path)
    found = path[-1] if error["loc"][-1] == "[key]" else _at(document.value, path)
    cause = error.get("ctx", {}).get("error")
    shows = error["type"] == "value_error" and isinstance(found, (str, int, float)) and path[0] not in _UNSHOWN
    hidden = isinstance(cause, FieldError) and cause.hidden
    return Problem(path, message, document.templates.get(path, found) if shows and not hidden else None, try_)


def _path(error: ErrorDetails, job: Any) -> Path:
    """Where the error is in the file: pydantic's own words for its inner steps are left out."""
    path: list[str | int] = []
    place = job
    for part in error["loc"]:
        inner = _inner(place, part)
        if inner is not _NOWHERE:
            path.append(part)
            place = inner
    if error["type"] == "missing" and isinstance(place, dict):
        path.append(error["loc"][-1])
    return tuple(path)


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = _inner(value, part)
    return value


def _inner(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part, _NOWHERE)
    return value[part] if isinstance(value, list) and isinstance(part, int) else _NOWHERE


def _words(error: ErrorDetails, path: Path) -> tuple[str, str | None]:
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error" if isinstance(cause := context["error"], FieldError):
            return cause.message, cause.try_
        case "extra_forbidden":
            return _unknown(path)
        case "missing":
            return "is missing.", f"write `{path[-1]}: ...`."
        case "too_long":
            return f"has more than {context['max_length']} items.", None
        case "tuple_type":
            return "is not a list.", "write [a, b]."
        case "model_type" if path[0] in SHORT_FORMS:
            return "is neither text nor a mapping.", None
        case "dict_type" | "model_type":
            return "is not a mapping.", "write {key: value}."
    return f"is not accepted: {error['msg']}.", None


def _unknown(path: Path) -> tuple[str, str | None]:
    known = [field.alias or name for name, field in _SECTIONS[path[:-1]].model_fields.items()]
    names = tuple(str(part) for part in path)
    if refused := not_yet(names):
        return refused
    if hint := nearest(names[-1], known):
        return f"is no field of a job file. {hint}", None
    return "is no field of a job file.", f"the fields here: {', '.join(known)}."
