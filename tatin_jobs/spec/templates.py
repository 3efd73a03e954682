"""``template`` and ``vars``: prompts of Jinja2 templates, rendered for a whole submit by one limited child (A36).

What a job gives as values is data, however many braces it holds; a template reaches nothing but its values.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tatin_jobs.spec.checks import MAX_PROMPT_BYTES
from tatin_jobs.spec.file_model import JobFile
from tatin_jobs.spec.problems import FieldError
from tatin_jobs.terminal import clean_line

CPU_SECONDS = 10
"""For all templates of a submit; one takes about a millisecond."""
MEMORY_BYTES = 512 * 2**20
TOTAL_BYTES = 256 * 2**20
"""Of all prompts that the templates of a submit make."""
WALL_SECONDS = 60
_CHILD = Path(__file__).with_name("template_child.py")

Key = tuple[str, str]
"""A template's text, and its values as JSON."""


def key_of(job: JobFile) -> Key | None:
    """What the prompt of this job is rendered from; None when it has no template."""
    return (job.template.text, json.dumps(job.vars, sort_keys=True)) if job.template else None


def render_prompts(jobs: Iterable[JobFile]) -> Mapping[Key, str | FieldError]:
    """The prompt of every job that has a template, or what is wrong with it; the same values are rendered once."""
    keys = list(dict.fromkeys(key for job in jobs if (key := key_of(job))))
    if not keys:
        return {}
    texts = list(dict.fromkeys(text for text, _ in keys))
    asked = {
        "templates": texts,
        "items": [[texts.index(text), json.loads(values)] for text, values in keys],
        "cpu_seconds": CPU_SECONDS,
        "memory_bytes": MEMORY_BYTES,
        "most_bytes": MAX_PROMPT_BYTES,
        "most_bytes_in_all": TOTAL_BYTES,
    }
    lines = _ask(json.dumps(asked).encode())
    answers = [_answer(json.loads(line)) for line in lines[: len(keys)]]
    late = FieldError("takes more time or memory than a template may.", "make it simpler.")
    return dict(zip(keys, [*answers, *[late] * (len(keys) - len(answers))], strict=True))


def _ask(request: bytes) -> list[bytes]:
    """The whole lines that the child printed before it ended or met a limit."""
    argv = [sys.executable, "-I", str(_CHILD)]
    try:
        done = subprocess.run(argv, input=request, capture_output=True, timeout=WALL_SECONDS, env={}, check=False)
        printed = done.stdout
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or b""
    return printed[: printed.rfind(b"\n") + 1].splitlines()


def _answer(line: Mapping[str, Any]) -> str | FieldError:
    if "text" in line:
        return str(line["text"])
    return FieldError(f"{clean_line(str(line['error']), 200)}.", "see docs/job-file.md on templates.")
