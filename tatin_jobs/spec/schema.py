"""The JSON Schema of a job file, made by the model that reads it."""

from __future__ import annotations

from typing import Any

from tatin_jobs.spec.checks import written_duration
from tatin_jobs.spec.file_model import JobFile

_NULL = {"type": "null"}


def job_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of one document of a job file, for editors.

    What only the reader can tell is not in it: files that are missing, fields that exclude one another, variables.
    """
    schema = _tidy(JobFile.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Tatin job file"}


def _tidy(schema: Any) -> Any:
    """Without what describes our model and not the file: titles, ``null``, and defaults in units that no file has."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "$defs"):
            tidy[key] = {name: _tidy(item) for name, item in value.items()}
        elif key in ("examples", "enum", "const", "required"):
            tidy[key] = value
        elif key not in ("title", "default"):
            tidy[key] = _tidy(value)
    default = schema.get("default")
    if isinstance(default, int) and schema.get("type") == "string":
        tidy["default"] = written_duration(default)
    elif isinstance(default, (str, int)):
        tidy["default"] = default
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    return _without_null(tidy)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.get("anyOf", []) if kind != _NULL]
    if len(kinds) != 1:
        return {**schema, "anyOf": kinds} if kinds else schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**kinds[0], **rest}
