"""What a plain YAML scalar means: the core schema of YAML 1.2 and nothing else, so ``no`` and ``22:00`` are text."""

from __future__ import annotations

import re

from tatin_jobs.spec.problems import FieldError

MAX_NUMBER_CHARACTERS = 30
"""No number in a job file needs more; turning 5,000 digits into an int is slow, and an error in itself (A30)."""

Scalar = str | int | float | bool | None

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BASES = ((_INT, 10), (_OCTAL, 8), (_HEX, 16))


def plain_value(text: str) -> Scalar:
    """The value of a scalar without quotes.

    Raises:
        FieldError: infinity, not-a-number, or a number longer than any field takes.
    """
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NO_NUMBER.fullmatch(text):
        raise FieldError("infinity and not-a-number are not accepted.", "put it in quotes if text is meant.")
    for pattern, base in _BASES:
        if pattern.fullmatch(text):
            return int(_short(text), base)
    if _FLOAT.fullmatch(text):
        number = float(_short(text))
        if number in (float("inf"), float("-inf")):
            raise FieldError("the number is too large.", "put it in quotes if text is meant.")
        return number
    return text


def _short(text: str) -> str:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise FieldError(
            f"a number of {len(text)} characters is too long ({MAX_NUMBER_CHARACTERS} at most).",
            "put it in quotes if text is meant.",
        )
    return text
