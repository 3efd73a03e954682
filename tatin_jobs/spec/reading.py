"""Job files in, resolved jobs out; or every complaint about all of them at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import BadJobFile, Complaint
from tatin_jobs.gates import default_account
from tatin_jobs.models import JobSpec, Need
from tatin_jobs.names import NAME
from tatin_jobs.settings import Settings
from tatin_jobs.spec.file_model import JobFile
from tatin_jobs.spec.local_files import Surroundings
from tatin_jobs.spec.matrix import expand
from tatin_jobs.spec.need import need_of
from tatin_jobs.spec.overrides import Override, apply, read_overrides
from tatin_jobs.spec.problems import FieldError, Problem, complaint, dotted
from tatin_jobs.spec.resolve import CannotKeep, Keeper
from tatin_jobs.spec.templates import Key, key_of, render_prompts
from tatin_jobs.spec.validate import validate
from tatin_jobs.spec.variables import fill_in
from tatin_jobs.spec.yaml_nodes import Document, read_documents
from tatin_jobs.units import format_size

MAX_FILE_BYTES = 4 * 2**20
"""A prompt of 1 MB fits; a longer text is better a ``prompt_file``."""
MAX_JOBS = 10_000
"""In one submit."""
STDIN = "-"


@dataclass(frozen=True)
class ReadJob:
    """One job, ready to submit.

    ``source`` is its file as the user gave it. ``warnings`` are sentences for people about what may not be as meant.
    """

    spec: JobSpec
    need: Need
    source: str
    warnings: tuple[str, ...]


@dataclass
class _Pending:
    """A job that is good as far as can be told without keeping anything."""

    file: str
    document: Document
    job: JobFile
    cell: Mapping[str, str]
    trial: int


def read_jobs(
    files: Sequence[str],
    *,
    environ: Mapping[str, str],
    overrides: Sequence[str] = (),
    settings: Settings,
    blobs: Blobs,
    now: datetime,
) -> list[ReadJob]:
    """Every job of ``files`` (``-``: stdin), in their order, with ``overrides`` (``key=value``) set in each.

    ``environ`` is where ``${VAR}`` is looked up. ``now`` is aware. Blobs are written when all is known to be good.

    Raises:
        BadJobFile: something is wrong; holds every complaint about every file, by file and line.
        PartMissing: a job has a local repository, and git is not installed.
    """
    set_, problems = read_overrides(overrides)
    complaints = [complaint("--set", problem.line, "", problem) for problem in problems]
    pending: list[_Pending] = []
    for file in files:
        found, wrong = _read_file(file, set_, environ, now)
        pending += found
        complaints += wrong
        if len(pending) > MAX_JOBS:
            complaints.append(Complaint(file, None, "", f"makes more than {MAX_JOBS} jobs in one submit."))
            break
    if complaints:
        raise BadJobFile(list(dict.fromkeys(complaints)))
    return _resolve(pending, settings, blobs, now)


def _resolve(pending: Sequence[_Pending], settings: Settings, blobs: Blobs, now: datetime) -> list[ReadJob]:
    prompts = _prompts_of_templates(pending)
    keeper = Keeper(blobs, {item.file for item in pending})
    jobs: list[ReadJob] = []
    complaints: list[Complaint] = []
    told: set[tuple[str, str]] = set()
    for item in pending:
        try:
            spec = keeper.spec(item.job, _default_name(item.file), prompts.get(key_of(item.job)))
        except CannotKeep as error:
            complaints += _complaints(item.file, item.document, [error.problem])
            continue
        cell = {"cell": dict(item.cell), "trial": item.trial, "trials": item.job.trials}
        spec = spec.model_copy(update={**cell, "account": spec.account or default_account(spec, settings)})
        warnings = [(item.file, text) for text in keeper.warnings(item.job, now)]
        new = tuple(text for warning in warnings if warning not in told for text in warning[1:])
        told.update(warnings)
        jobs.append(ReadJob(spec, need_of(spec, settings), item.file, new))
    if complaints:
        raise BadJobFile(list(dict.fromkeys(complaints)))
    return jobs


def _prompts_of_templates(pending: Sequence[_Pending]) -> dict[Key | None, str]:
    """Rendered before anything is kept. Raises BadJobFile."""
    rendered = render_prompts(item.job for item in pending)
    complaints = []
    for item in pending:
        key = key_of(item.job)
        if key and isinstance(wrong := rendered[key], FieldError):
            problem = Problem(("template",), wrong.message, try_=wrong.try_)
            complaints += _complaints(item.file, item.document, [problem])
    if complaints:
        raise BadJobFile(list(dict.fromkeys(complaints)))
    return {key: text for key, text in rendered.items() if isinstance(text, str)}


def _read_file(
    file: str, overrides: Sequence[Override], environ: Mapping[str, str], now: datetime
) -> tuple[list[_Pending], list[Complaint]]:
    text = _read_text(file)
    if isinstance(text, Complaint):
        return [], [text]
    documents, problems = read_documents(text)
    complaints = [complaint(file, problem.line, dotted(problem.path), problem) for problem in problems]
    if not documents and not problems:
        complaints.append(Complaint(file, None, "", "holds no job.", try_="see the examples in jobs/."))
    around = Surroundings(Path.cwd() if file == STDIN else Path(file).absolute().parent, now)
    pending: list[_Pending] = []
    for document in documents:
        misplaced, unfilled = apply(overrides, document), fill_in(document, environ)
        cells, unexpanded = expand(document)
        complaints += _complaints(file, document, [*misplaced, *unfilled, *unexpanded])
        good = []
        for cell in cells:
            job, wrong = validate(cell.document, around)
            wrong = [problem for problem in wrong if problem.path not in document.broken]
            complaints += _complaints(file, cell.document, wrong)
            if job and not document.broken:
                good.append(_Pending(file, cell.document, job, cell.names, 1))
        pending += _repeated(good)
        if len(pending) > MAX_JOBS:
            break
    return pending, sorted(complaints, key=lambda item: item.line or 0)


def _repeated(cells: Sequence[_Pending]) -> Iterator[_Pending]:
    """Every trial of every cell, the first of all of them first: a batch that is stopped half-way has as much of each.
    More than MAX_JOBS are not made."""
    most = max((cell.job.trials for cell in cells), default=0)
    every = (replace(cell, trial=trial) for trial in range(1, most + 1) for cell in cells if trial <= cell.job.trials)
    return islice(every, MAX_JOBS + 1)


def _complaints(file: str, document: Document, problems: Sequence[Problem]) -> list[Complaint]:
    return [
        complaint(file, problem.line or document.line_of(problem.path), dotted(problem.path), problem)
        for problem in problems
    ]


def _default_name(file: str) -> str:
    stem = Path(file).stem
    return stem if NAME.fullmatch(stem) else "job"


def _read_text(file: str) -> str | Complaint:
    try:
        if file == STDIN:
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with open(file, "rb") as source:
                data = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return Complaint(file, None, "", f"cannot be read: {error.strerror or error}.")
    except ValueError:  # a NUL in the name
        return Complaint(file, None, "", "is no name of a file.")
    if len(data) > MAX_FILE_BYTES:
        advice = "put long prompts into a `prompt_file`."
        return Complaint(file, None, "", f"has more than {format_size(MAX_FILE_BYTES)}.", try_=advice)
    if b"\0" in data:
        return Complaint(file, data.count(b"\n", 0, data.index(b"\0")) + 1, "", "holds a NUL byte.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Complaint(file, data.count(b"\n", 0, error.start) + 1, "", "is not UTF-8.", try_="save it as UTF-8.")
