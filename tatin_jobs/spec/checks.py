"""What each field of a job file takes: checks that turn what the user wrote into what JobSpec holds.

All of them raise FieldError when the value is not taken; its message reads on from the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tatin_jobs import names
from tatin_jobs.netrules import RuleError, parse_rule
from tatin_jobs.spec.addresses import check_base_url
from tatin_jobs.spec.problems import FieldError, nearest, one_of, shown
from tatin_jobs.states import Reason
from tatin_jobs.units import MIB, format_size, parse_duration, parse_size

TOOLS = ("claude", "opencode", "pi", "crush", "command")
OWN_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
MAX_TOOL_CHARACTERS = 200
MAX_PROMPT_BYTES = 4 * 2**20
MAX_LINE_BYTES = 64 * 2**10
"""A shell line travels as one argument (131,071 bytes at most) and in the job's record."""
MAX_VALUE_BYTES = 32 * 2**10
MAX_TOTAL_BYTES = 96 * 2**10
"""All of ``args`` or ``env`` together: they stand in the job's record. What is larger can be a file in ``inputs``."""
MAX_LIST = 256
MAX_LABELS = 32
MAX_TAGS = 32
MAX_GLOBS = 64
MAX_NEEDS = 64
MAX_INPUTS = 1_000
MAX_TRIALS = 1_000
MAX_DOLLARS = 1_000_000
MAX_PATH = 1_000
"""Characters of a path, a pattern or an address's name."""

_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Controls but tab and newline, and what turns the direction of writing: a line must be what it looks like."""
_SPECIAL_REF = re.compile(r"[\s\x00-\x1f\x7f:?*\[\\]|\.\.")


def text(value: object) -> str:
    """Text as it is.

    Raises:
        FieldError: it is something else; says to quote a number or a truth value.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        kind = "true or false" if isinstance(value, bool) else "a number"
        raise FieldError(f"is {kind} where text is wanted.", 'quote it: "..."')
    raise FieldError(f"is a {'list' if isinstance(value, list) else 'mapping'} where text is wanted.")


def whole(value: object, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    # Text counts too: what a variable stands for is text.
    number = int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise FieldError("is no whole number.", f"write a number from {low} to {high}.")
    if not low <= number <= high:
        raise FieldError(f"is not between {low} and {high}.")
    return number


def dollars(value: object) -> float:
    """An amount of US dollars over 0."""
    number = float(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise FieldError("is no amount of US dollars.", "write a number, such as 5 or 0.50.")
    if not 0 < number <= MAX_DOLLARS:
        raise FieldError(f"is not over 0 and at most {MAX_DOLLARS}.")
    return float(number)


def version(value: object) -> int:
    """The version of the format."""
    if value != 1 or isinstance(value, bool):
        raise FieldError("is a version of job files that this Tatin does not know.", "write 1.")
    return 1


def matching(pattern: re.Pattern[str], what: str, value: object) -> str:
    """Text that is all ``pattern``; ``what`` says so in words."""
    found = text(value)
    if pattern.fullmatch(found) is None:
        raise FieldError(f"is no usable name: {what}.")
    return found


def chosen(choices: Sequence[str], refused: Mapping[str, str], value: object) -> str:
    """One of ``choices``; ``refused`` has words for those that are known but not built."""
    found = text(value)
    if found in choices:
        return found
    if why := refused.get(found):
        raise FieldError(why, f"write {one_of(choices)}.")
    hint = nearest(found, choices)
    raise FieldError(f"is not known here.{f' {hint}' if hint else ''}", f"write {one_of(choices)}.")


def filled(value: object, what: str, limit: int) -> str:
    """Text that is not blank and not longer than ``limit`` bytes; ``what`` is what it should be."""
    found = text(value)
    if not found.strip():
        raise FieldError("is empty.", f"write {what}, or leave the field out.")
    if len(found.encode()) > limit:
        raise FieldError(f"has more than {format_size(limit)}.")
    return found


def prompt(value: object) -> str:
    """A prompt, exactly as it is."""
    found = text(value)
    if not found.strip():
        raise FieldError("is empty.", "write what the agent is to do.")
    if len(found.encode()) > MAX_PROMPT_BYTES:
        raise FieldError(f"has more than {format_size(MAX_PROMPT_BYTES)}.")
    return found


def plain_text(value: object, limit: int = MAX_VALUE_BYTES) -> str:
    """Text without anything unseen but tabs and newlines."""
    found = text(value)
    if len(found.encode()) > limit:
        raise FieldError(f"has more than {format_size(limit)}.")
    if match := _HIDDEN.search(found):
        raise FieldError(f"holds the unseen character U+{ord(match[0]):04X}.", "write it as an escape of the shell's.")
    return found


def line(value: object) -> str:
    """A shell line."""
    return plain_text(filled(value, "a shell line", MAX_LINE_BYTES), MAX_LINE_BYTES)


def one_name(value: object, what: str) -> str:
    """Text in one line, without anything unseen."""
    found = filled(value, what, MAX_PATH)
    if not found.isprintable():
        raise FieldError("holds characters that cannot be seen.")
    return found


def duration(low: int, high: int, value: object) -> int:
    """Seconds from ``low`` to ``high`` of ``1h30m``."""
    found = text(value) if not isinstance(value, int) or isinstance(value, bool) else str(value)
    try:
        seconds = parse_duration(found)
    except ValueError as error:
        raise _unit_error(error, found) from error
    if not low <= seconds <= high:
        raise FieldError(f"is not between {written_duration(low)} and {written_duration(high)}.")
    return seconds


def written_duration(seconds: int) -> str:
    """``90s``, ``15m``, ``2h``, ``30d``: as it would stand in a job file."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def size(low_mib: int, high_mib: int, value: object) -> int:
    """MiB of ``8GiB``, rounded up."""
    found = text(value) if not isinstance(value, int) or isinstance(value, bool) else str(value)
    try:
        size_bytes = parse_size(found)
    except ValueError as error:
        raise _unit_error(error, found) from error
    if not low_mib * MIB <= size_bytes <= high_mib * MIB:
        raise FieldError(f"is not between {format_size(low_mib * MIB)} and {format_size(high_mib * MIB)}.")
    return -(-size_bytes // MIB)


def _unit_error(error: ValueError, found: str) -> FieldError:
    """The message of ``units`` without the value, which every complaint shows by itself."""
    what, _, advice = str(error).removeprefix(f"{found[:40]!r} ").removeprefix(f"{found!r} ").partition("; ")
    return FieldError(f"{what}.", f"{advice}." if advice else None)


def relative_path(value: object, what: str = "a path") -> str:
    """A relative path that stays where it is, with forward slashes and no ``.`` in it."""
    found = one_name(value, what)
    parts = PurePosixPath(found).parts
    if found.startswith(("/", "~")) or ".." in parts:
        raise FieldError("leads elsewhere.", "write a relative path without `..`.")
    return str(PurePosixPath(found))


def artifact_glob(value: object) -> str:
    """A pattern of artifacts, relative to the guest's home."""
    found = one_name(value, "a pattern")
    if found.startswith(("/", "~")) or ".." in found.split("/"):
        raise FieldError("leads out of the guest's home folder.", "write it as work/report.html or work/**/*.csv.")
    return found


def subdir(value: object) -> str:
    """A folder inside the repository."""
    found = relative_path(value, "a folder of the repository")
    if found == "." or found.split("/")[0] == ".git":
        raise FieldError("is no folder of the repository's own.", "leave `subdir` out for the whole repository.")
    return found


def ref(value: object) -> str:
    """A branch, a tag or a commit. The worker, or git here, knows whether it exists."""
    found = one_name(value, "a branch, a tag or a commit")
    if found.startswith("-") or _SPECIAL_REF.search(found) or len(found) > 200:
        raise FieldError("is no branch, tag or commit.")
    return found


def base_url(value: object) -> str:
    """The address of a model server."""
    found = one_name(value, "an address")
    check_base_url(found)
    return found


def env_name(value: object) -> str:
    """The name of a variable in the guest."""
    found = matching(names.ENV_NAME, "letters, digits and `_`, no digit first", value)
    if found.upper().startswith("TATIN_"):
        raise FieldError("begins with `TATIN_`, which is Tatin's own.")
    return found


def model_name(value: object) -> str:
    """The name of a model, as its server knows it."""
    found = one_name(value, "the model's name")
    if found != found.strip() or found.startswith("-") or len(found) > 200:
        raise FieldError("is no name of a model.")
    return found


def allow_rule(value: object) -> str:
    """One rule of an allow-list, as it is written."""
    found = one_name(value, "a host or a ready-made list")
    try:
        parse_rule(found)
    except RuleError as error:
        raise FieldError(error.message, error.try_) from error
    return found


def argument(value: object) -> str:
    """One argument of the agent's."""
    return plain_text(value, MAX_LINE_BYTES)


def env_value(value: object) -> str:
    """The value of a variable in the guest, in one line."""
    found = plain_text(value)
    if "\n" in found:
        raise FieldError("holds a newline.")
    return found


def input_path(value: object) -> str:
    """A file beside the job file, with the name that it gets in the guest's ``work/``."""
    found = relative_path(value, "the path of a file")
    if found.split("/")[0].casefold() == "repo":
        raise FieldError("would lie in the repository, which is `work/repo`.", "put the file under another name.")
    return found


def tool(value: object) -> str:
    """The agent tool, or a class of the user's own as ``module:Class``; whether a worker allows it, it says itself."""
    if isinstance(value, str) and len(value) <= MAX_TOOL_CHARACTERS and OWN_TOOL.fullmatch(value):
        return value
    return chosen(TOOLS, {}, value)


def reason(choices: Sequence[Reason]) -> Callable[[object], Reason]:
    """A check for one of these reasons."""
    return lambda value: Reason(chosen([str(choice) for choice in choices], {}, value))


def check_total(texts: tuple[str, ...] | dict[str, str]) -> Any:
    """Arguments or an environment that fit into one exec."""
    parts = [*texts.keys(), *texts.values()] if isinstance(texts, dict) else texts
    if sum(len(part.encode()) for part in parts) > MAX_TOTAL_BYTES:
        raise FieldError(f"has more than {format_size(MAX_TOTAL_BYTES)} in all.")
    return texts


def no_repeats(texts: tuple[Any, ...]) -> tuple[Any, ...]:
    """A list that names nothing twice."""
    if len(set(texts)) < len(texts):
        raise FieldError("names the same thing twice.")
    return texts


def template_vars(value: object) -> dict[str, Any]:
    """Names that a template may use, with whatever values."""
    if not isinstance(value, dict):
        raise FieldError("is not a mapping.", "write {name: value}.")
    for name in value:
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) is None:
            what = f"has the name {shown(name)}, which a template cannot use."
            raise FieldError(what, "use letters, digits and `_`, a letter first.")
    return value


def command(value: object) -> str | tuple[str, ...]:
    """A shell line, or a list that is the argument vector."""
    if not isinstance(value, list):
        return line(value)
    if not value or len(value) > MAX_LIST:
        raise FieldError(f"has {len(value)} items where 1 to {MAX_LIST} are wanted.", "write [program, argument, ...].")
    found = tuple(_item(item, index) for index, item in enumerate(value))
    if not found[0].strip():
        raise FieldError("names no program.", "write [program, argument, ...] or a shell line.")
    check_total(found)
    return found


def _item(value: object, index: int) -> str:
    try:
        return plain_text(value, MAX_LINE_BYTES)
    except FieldError as error:
        raise FieldError(f"{error.message[:-1]} (item {index + 1}).", error.try_) from error
