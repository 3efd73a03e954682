"""The submitter's files that a job names: read with the submitter's rights, inside the job file's folder (A37).

All checks here raise FieldError when the value is not taken, as those of ``checks`` do.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tatin_jobs.spec import checks
from tatin_jobs.spec.addresses import is_address
from tatin_jobs.spec.problems import FieldError
from tatin_jobs.units import format_size

MAX_INPUT_BYTES = 256 * 2**20
"""All inputs of one job; the worker holds them in memory while it pushes them."""


@dataclass(frozen=True)
class Surroundings:
    """What the values of a job file depend on beside the file: its folder, and the time, which is aware."""

    folder: Path
    now: datetime


@dataclass(frozen=True)
class PromptFile:
    """A prompt that was read. ``outside``: from elsewhere than the job file's folder."""

    path: Path
    text: str
    outside: bool


@dataclass(frozen=True)
class InputSource:
    """A file that is to go along: its name in the guest's ``work/``, and where it is, links followed."""

    name: str
    path: Path
    size_bytes: int


def prompt_file(value: object, around: Surroundings) -> PromptFile:
    """The prompt in a file, to the byte: its UTF-8 is what is in the file.

    A relative path stays in the folder, also through links; an absolute one is taken at its word.
    """
    name = checks.one_name(value, "the path of a file")
    path = _existing(around.folder / name)
    outside = not path.is_relative_to(around.folder.resolve())
    if outside and not Path(name).is_absolute():
        raise FieldError("leads out of the job file's folder.", "write its absolute path, or copy the file there.")
    size = _regular(path)
    if size > checks.MAX_PROMPT_BYTES:
        raise FieldError(f"has {format_size(size)}; a prompt has {format_size(checks.MAX_PROMPT_BYTES)} at most.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error
    return PromptFile(path, _decoded(data), outside)


def input_file(value: object, around: Surroundings) -> InputSource:
    """A regular file in the folder."""
    name = checks.input_path(value)
    path = _existing(around.folder / name)
    if not path.is_relative_to(around.folder.resolve()):
        raise FieldError("leads out of the job file's folder.", "copy the file there.")
    return InputSource(name, path, _regular(path))


def check_inputs(inputs: tuple[InputSource, ...]) -> tuple[InputSource, ...]:
    """Inputs that are not too much together."""
    total = sum(item.size_bytes for item in inputs)
    if total > MAX_INPUT_BYTES:
        advice = "fetch them in `setup`, or commit them."
        raise FieldError(f"has {format_size(total)} in all; {format_size(MAX_INPUT_BYTES)} is the most.", advice)
    return inputs


def repository(value: object, around: Surroundings) -> str | Path:
    """An address, or the folder of a local repository."""
    text = checks.one_name(value, "an address or a path")
    return text if is_address(text) else repository_folder(text, around)


def repository_folder(value: object, around: Surroundings) -> Path:
    """A folder; ``~`` is the submitter's home."""
    text = checks.one_name(value, "the path of a folder")
    try:
        path = around.folder / Path(text).expanduser()
    except RuntimeError as error:
        raise FieldError("names a home folder that there is not.") from error
    advice = "a path is relative to the job file; an address begins with https://, ssh:// or user@host:."
    found = _existing(path, advice)
    if not found.is_dir():
        raise FieldError("is not a folder.")
    return found


def _decoded(data: bytes) -> str:
    if b"\0" in data:
        raise FieldError("holds a NUL byte, so it is no text.")
    if not data.strip():
        raise FieldError("is empty.", "write what the agent is to do into it.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FieldError(f"is not UTF-8 (byte {error.start}).", "save it as UTF-8.") from error


def _existing(path: Path, advice: str = "a path is relative to the job file.") -> Path:
    try:
        return path.resolve(strict=True)
    except FileNotFoundError as error:
        raise FieldError("does not exist.", advice) from error
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise FieldError("is a link to itself.") from error
    except OSError as error:
        raise _unreadable(error) from error


def _regular(path: Path) -> int:
    """Size of a regular file; reading anything else may never end."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(error) from error
    if stat.S_ISDIR(found.st_mode):
        raise FieldError("is a folder.", "name the files in it.")
    if not stat.S_ISREG(found.st_mode):
        raise FieldError("is not a regular file.")
    return found.st_size


def _unreadable(error: OSError) -> FieldError:
    return FieldError(f"cannot be read: {error.strerror or error}.")
