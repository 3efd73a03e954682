"""``${VAR}`` and its forms, as in compose files, filled in from the submitter's environment in every text of a job.

    ${VAR}                            its value; not set: a complaint
    ${VAR:-default} ${VAR-default}    the default when it is not set (with the colon: or empty)
    ${VAR:?text}    ${VAR?text}       a complaint with that text when it is not set (with the colon: or empty)
    $${                               a plain ``${``

``$VAR`` and a lone ``$`` stay as they are, since prompts and shell lines are full of them. Variables that are named
like secrets are refused, and a complaint about a text shows it as it was before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tatin_jobs.spec.problems import Path, Problem, shown
from tatin_jobs.spec.yaml_nodes import MAX_EXPANDED_CHARACTERS, Document, text_problem

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""A variable with one of these in its name is taken for a secret."""
FREE_TEXTS = ("prompt", "command", "setup", "verify")
"""Fields whose text may hold ``${...}`` of its own: there only the forms above mean anything."""

# A form holds no brace, so that text full of `${` is read in one pass.
_FORM = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)\}|\$\{")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<colon>:?)(?P<kind>[-?])(?P<text>.*))?", re.DOTALL)


def fill_in(document: Document, environ: Mapping[str, str]) -> list[Problem]:
    """Replace the variables in all texts of ``document``; returns what is wrong with them."""
    filler = _Filler(document, environ)
    document.value = filler.fill(document.value, ())
    document.broken |= {problem.path for problem in filler.problems}
    return filler.problems


class _Filler:
    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._characters = 0
        self.problems: list[Problem] = []

    def fill(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self.fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(value, path)
        return value

    def _text(self, text: str, path: Path) -> str:
        self._document.templates[path] = text
        pieces: list[str] = []
        end = 0
        for match in _FORM.finditer(text):
            pieces += (text[end : match.start()], self._form(match, path))
            end = match.end()
            self._characters += len(pieces[-1])
            if self._characters > MAX_EXPANDED_CHARACTERS:
                self._refuse(path, "is too large once its variables are filled in.")
                return ""
        filled = "".join((*pieces, text[end:]))
        if problem := text_problem(filled):
            self._refuse(path, f"{problem[:-1]} once its variables are filled in.")
            return ""
        return filled

    def _form(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$${":
            return "${"
        body = _BODY.fullmatch(match["body"] or "")
        if body is not None:
            return self._value(body, path)
        if path and not _is_free(path):
            advice = "write ${VAR}, ${VAR:-default} or ${VAR:?message}; for a plain `${`, write `$${`."
            self._refuse(path, "is no form of a variable that is known here.", match[0], advice)
        return match[0]

    def _value(self, body: re.Match[str], path: Path) -> str:
        name, text = body["name"], body["text"] or ""
        own = f"for the guest's own variable, write `$${{{shown(name)}}}`."
        if any(word in name.upper() for word in SECRET_WORDS):
            what = f"the variable {shown(name)} is named like a secret, and secrets do not go into a job file."
            self._refuse(path, what, try_=f"leave it out; {own}" if _is_free(path) else None)
            return ""
        value = self._environ.get(name)
        if value or (value is not None and not body["colon"]):
            return value
        if body["kind"] == "-":
            return text
        state = "is not set" if value is None else "is empty"
        message = f"the variable {shown(name)} {state}{f': {shown(text)}' if text else '.'}"
        advice = f"set it, or write ${{{shown(name)}:-default}}"
        self._refuse(path, message, try_=f"{advice}; {own}" if _is_free(path) else f"{advice}.")
        return ""

    def _refuse(self, path: Path, message: str, value: str | None = None, try_: str | None = None) -> None:
        self.problems.append(Problem(path, message, value, try_, self._document.line_of(path)))


def _is_free(path: Path) -> bool:
    """Whether this is a free text, as a field or as a value of it in the matrix."""
    if path[:1] == ("matrix",):
        path = path[3:] if path[1:2] in (("include",), ("exclude",)) else path[1:]
    return bool(path) and str(path[0]).partition(".")[0] in FREE_TEXTS
