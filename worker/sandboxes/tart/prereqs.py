"""What a Mac needs for Tart, each with the command that mends it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from tatin_jobs.errors import PartMissing, SandboxError
from tatin_jobs.models import DEFAULT_IMAGE
from worker.sandboxes.base import Capabilities, Finding
from worker.sandboxes.tart.cli import LIST_SECONDS, find_tart, read_rows, tart_environment

OLDEST = (2, 28)
"""``exec`` with its guest agent."""
_UPGRADE = "brew upgrade openai/tools/tart"


def check(capabilities: Capabilities) -> Sequence[Finding]:
    """Findings for ``doctor``; starts short processes."""
    try:
        program = find_tart()
    except PartMissing as error:
        return [Finding("tart", False, error.what, error.try_ or "")]
    version = _version(program)
    return [version, _image(program), _network(capabilities)] if version.ok else [version]


def _version(program: str) -> Finding:
    try:
        said = _ask(program, "--version").stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("tart", False, f"`tart --version`: {error}", "brew reinstall openai/tools/tart")
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})\.\d{1,4}", said)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        return Finding("tart", False, f"Tart {said} is too old; {OLDEST[0]}.{OLDEST[1]} is the oldest", _UPGRADE)
    known = found or said == "SNAPSHOT"
    return Finding("tart", bool(known), f"Tart {said}" if known else f"`tart --version` says {said[:60]!r}", _UPGRADE)


def _image(program: str) -> Finding:
    fix = "tatin image build --sandbox tart"
    try:
        rows = read_rows(_ask(program, "list", "--format", "json").stdout)
    except (OSError, subprocess.TimeoutExpired, SandboxError) as error:
        return Finding("tart image", False, f"`tart list`: {error}", "tart list")
    if any(row.is_local and row.name == DEFAULT_IMAGE for row in rows):
        return Finding("tart image", True, DEFAULT_IMAGE)
    return Finding("tart image", False, f"`tart list` shows no '{DEFAULT_IMAGE}'", fix)


def _network(capabilities: Capabilities) -> Finding:
    """Said, not required: a job's network rules hold only with softnet, and with pf for this host's own ports."""
    if warning := capabilities.egress_warning:
        return Finding("tart network", True, f"open: {warning}; docs/machines.md says how to close it")
    return Finding("tart network", True, "closed by softnet and pf")


def _ask(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIST_SECONDS,
        check=False,
        env=tart_environment(),
    )
