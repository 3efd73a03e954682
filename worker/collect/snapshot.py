"""What the agent left, as git in the guest sees it: made there, read here as hostile text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tatin_jobs.errors import CommandTimeout
from tatin_jobs.units import format_size
from worker.collect.guest_files import BASE_INDEX_NAME
from worker.collect.names import shown
from worker.collect.spec import CollectLimits, CollectSpec, Snapshot
from worker.sandboxes.base import Sandbox

SNAPSHOT_SECONDS = 600
_SCRIPT: Final = Path(__file__).with_name("snapshot.sh").read_text()
_STAT = re.compile(rb" (\d{1,12}) files? changed(?:, (\d{1,12}) insertions?\(\+\))?(?:, (\d{1,12}) deletions?\(-\))?")
_NUMBER = re.compile(rb"\d{1,15}")


async def snapshot(
    sandbox: Sandbox,
    spec: CollectSpec,
    limits: CollectLimits | None = None,
    *,
    timeout_seconds: float = SNAPSHOT_SECONDS,
) -> Snapshot:
    """Make the patch and the bundle in the guest, where ``collect`` finds them. The agent must be dead.

    A repository that git cannot read is a Snapshot with ``patch_missing``, no error.

    Raises:
        SandboxError: the sandbox died.
    """
    if spec.base_commit is None:
        return Snapshot(patch_missing="No repository was cloned.")
    limits = limits or CollectLimits()
    base_index = f"{spec.run_path}/{BASE_INDEX_NAME}"
    arguments = (spec.repo_path, spec.base_commit, spec.snapshot_path, base_index, str(limits.patch_bytes))
    try:
        done = await sandbox.run(("sh", "-c", _SCRIPT, "sh", *arguments), cwd="/", timeout_seconds=timeout_seconds)
    except CommandTimeout:
        return Snapshot(patch_missing=f"git took longer than {timeout_seconds:g} s over the repository.")
    if done.exit_status != 0:
        lines = done.stderr.strip().splitlines()
        seen = f": {shown(lines[-1])}" if lines else ""
        return Snapshot(patch_missing=f"The patch could not be made (exit status {done.exit_status}){seen}")
    return read_report(done.stdout, limits)


def read_report(report: bytes, limits: CollectLimits) -> Snapshot:
    """Read what ``snapshot.sh`` printed; lines that are none of its are passed over."""
    values: dict[bytes, list[bytes]] = {}
    for line in report.split(b"\n"):
        key, _, value = line.partition(b" ")
        values.setdefault(key, []).append(value)

    def number(key: bytes) -> int:
        found = values.get(key, [b""])[0].strip()
        return int(found) if _NUMBER.fullmatch(found) else 0

    if missing := values.get(b"missing"):
        text = shown(missing[0])
        gone = b"removed or replaced" in missing[0]
        return Snapshot(patch_missing=f"There is no patch: {text}.", gone=gone)
    stat = _STAT.fullmatch(values.get(b"stat", [b""])[0])
    files, added, removed = (int(figure or 0) for figure in stat.groups()) if stat else (0, 0, 0)
    left_out = [shown(line) for key in (b"left_out", b"unbundled") for line in values.get(key, [])[:5]]
    size = number(b"patch")
    return Snapshot(
        files_changed=files,
        lines_added=added,
        lines_removed=removed,
        commits=number(b"commits"),
        patch_bytes=size,
        patch_missing=_too_long(size, values.get(b"largest", [])) if size > limits.patch_bytes else None,
        left_out=tuple(left_out),
    )


def _too_long(size: int, largest: list[bytes]) -> str:
    found = [re.fullmatch(rb"(\d{1,15}) (.+)", line) for line in largest[:5]]
    names = ", ".join(f"{shown(match[2])} ({format_size(int(match[1]))})" for match in found if match)
    return f"The patch has {format_size(size)} and is kept as artifacts/changes.patch; the largest in it: {names}."
