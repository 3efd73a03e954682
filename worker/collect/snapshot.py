"""What the agent left, as git in the guest sees it: made there, read here as hostile text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from tatin_jobs.errors import CommandTimeout, SandboxError
from tatin_jobs.units import format_size
from worker.collect.globs import plan_search
from worker.collect.guest_files import BASE_INDEX_NAME
from worker.collect.spec import CollectSpec, Snapshot
from worker.sandboxes.base import CommandResult, Sandbox
from worker.sandboxes.transfer import make_new_folder, push_tar
from worker.unpacker.layout import CollectLimits
from worker.unpacker.names import shown

SNAPSHOT_SECONDS = 600
FREE_SECONDS = 60
PIPES_SECONDS = 20
"""git is done by then, or the tree is large, or it waits for a pipe that the agent left where git looks for a file."""
WHOLE_BYTES = 2**18
"""Of a patch that comes with the report: the worker holds it until the attempt's end."""
BESIDE: Final = Path(__file__).with_name("beside.sh").read_text()
_SCRIPT: Final = BESIDE + Path(__file__).with_name("snapshot.sh").read_text()
_FREE_PIPES: Final = """
find "$0" -type p -exec sh -c 'for p; do { chmod u+w "${p%/*}"; rm -f "$p"; } <>"$p"; done' sh {} +
"""
"""Whoever waits for a pipe goes on when somebody has it open for writing, and finds it at its end when that is over. It
is gone by then: git would open it once more."""
_WHOLE: Final = b"whole\n"
_STAT = re.compile(rb" (\d{1,12}) files? changed(?:, (\d{1,12}) insertions?\(\+\))?(?:, (\d{1,12}) deletions?\(-\))?")
_NUMBER = re.compile(rb"\d{1,15}")
_Report = dict[bytes, list[bytes]]


async def snapshot(
    sandbox: Sandbox,
    spec: CollectSpec,
    limits: CollectLimits | None = None,
    *,
    last: bool = False,
    timeout_seconds: float = SNAPSHOT_SECONDS,
    pipes_seconds: float = PIPES_SECONDS,
) -> Snapshot:
    """Make the patch and the bundle in the guest, where ``collect`` finds them. The agent must be dead.

    ``last``: nothing will run in the guest before ``collect``. Then a patch that is not long and all that is kept comes
    at once, and is in the Snapshot.

    Where the agent removed or broke the guest's ``.git``, ``spec.base_tar`` is sent in again. A repository that git
    cannot read all the same is a Snapshot with ``patch_missing``, no error. What takes longer than ``pipes_seconds``
    loses the pipes in the agent's home.

    Raises:
        SandboxError: the sandbox died.
    """
    if spec.base_commit is None:
        return Snapshot(patch_missing="No repository was cloned.")
    limits = limits or CollectLimits()
    try:
        async with asyncio.timeout(timeout_seconds), _pipes_freed(sandbox, spec.home, pipes_seconds):
            found = await _at_once(sandbox, spec, spec.base_commit, limits) if last else None
            if isinstance(found, Snapshot):
                return found
            report = found or await _report(sandbox, spec, spec.base_commit, limits, spare="", anew=last)
            if b"lost" in report and spec.base_tar is not None and await asyncio.to_thread(spec.base_tar.is_file):
                spare = await _send_again(sandbox, spec, spec.base_tar)
                report = await _report(sandbox, spec, spec.base_commit, limits, spare=spare)
    except (TimeoutError, CommandTimeout):
        return Snapshot(patch_missing=f"git took longer than {timeout_seconds:g} s over the repository.")
    return read_report(report, limits)


@asynccontextmanager
async def _pipes_freed(sandbox: Sandbox, home: str, seconds: float) -> AsyncIterator[None]:
    """Remove the pipes below ``home`` when this takes so long, and again later: git may have made a way to more."""
    loop, freeing = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    later = loop.call_later(seconds, lambda: freeing.add(loop.create_task(_free_pipes(sandbox, home, seconds))))
    try:
        yield
    finally:
        later.cancel()
        for task in freeing:
            task.cancel()
        if freeing:
            await asyncio.wait(freeing)


async def _free_pipes(sandbox: Sandbox, home: str, seconds: float) -> None:
    while True:
        with suppress(SandboxError, CommandTimeout):  # of a dead one the snapshot tells
            await sandbox.run(("/bin/sh", "-c", _FREE_PIPES, home), cwd="/", timeout_seconds=FREE_SECONDS)
        seconds *= 2
        await asyncio.sleep(seconds)


async def _at_once(
    sandbox: Sandbox, spec: CollectSpec, commit: str, limits: CollectLimits
) -> Snapshot | _Report | None:
    """The Snapshot with its patch; or the report, where more than a patch is kept; None: this patch must go by a file
    in the guest, for it is long or git failed over it."""
    search = plan_search(spec.artifact_globs, home=spec.home, repo_path=spec.repo_path)
    more = "\n".join((*search.repo_roots, *spec.transcript_paths))
    beside = (spec.home, spec.repo_below_home, "\n".join(search.roots), more)
    argv = (*_argv(spec, commit, limits, spare=""), *beside)
    done = await sandbox.run_short(argv, cwd="/", most=WHOLE_BYTES)
    if done.truncated:
        return None
    if not done.stdout.startswith(_WHOLE):
        return _lines(done)
    if done.exit_status != 0:
        return None
    whole = read_whole(done.stdout.removeprefix(_WHOLE))
    return whole if whole.patch_bytes <= limits.patch_bytes else None


async def _report(
    sandbox: Sandbox, spec: CollectSpec, commit: str, limits: CollectLimits, *, spare: str, anew: bool = False
) -> _Report:
    """What ``snapshot.sh`` printed: key -> values. ``anew``: without the index of the clone, which by now speaks of
    objects that an earlier call made and this one removes."""
    argv = _argv(spec, commit, limits, spare=spare, anew=anew)
    return _lines(await sandbox.run(argv, cwd="/", timeout_seconds=SNAPSHOT_SECONDS, max_output_bytes=2**18))


def _argv(spec: CollectSpec, commit: str, limits: CollectLimits, *, spare: str, anew: bool = False) -> tuple[str, ...]:
    base_index = "" if anew else f"{spec.run_path}/{BASE_INDEX_NAME}"
    arguments = (spec.repo_path, commit, spec.snapshot_path, base_index, str(limits.patch_bytes), spare)
    return ("/bin/sh", "-c", _SCRIPT, "sh", *arguments)


def _lines(done: CommandResult) -> _Report:
    if done.exit_status != 0:
        lines = done.stderr.strip().splitlines()
        seen = b": " + lines[-1] if lines else b""
        return {b"missing": [b"git could not be run (exit status %d)%s" % (done.exit_status, seen)]}
    report: _Report = {}
    for line in done.stdout.split(b"\n"):
        key, _, value = line.partition(b" ")
        report.setdefault(key, []).append(value)
    return report


async def _send_again(sandbox: Sandbox, spec: CollectSpec, base_tar: Path) -> str:
    """A fresh copy of the cloned ``.git`` into the guest; where it is there."""
    spare = f"{spec.run_path}/base"
    await make_new_folder(sandbox, spare)
    await push_tar(sandbox, [base_tar], spare)
    return spare


def read_report(report: _Report, limits: CollectLimits) -> Snapshot:
    """Read what ``snapshot.sh`` told; keys that are none of its are passed over."""

    def number(key: bytes) -> int:
        found = report.get(key, [b""])[0].strip()
        return int(found) if _NUMBER.fullmatch(found) else 0

    if missing := report.get(b"missing") or report.get(b"lost"):
        return Snapshot(patch_missing=f"There is no patch: {shown(missing[0])}.")
    files, added, removed = _figures(report.get(b"stat", [b""])[0])
    left_out = [shown(line) for key in (b"left_out", b"unbundled") for line in report.get(key, [])[:5]]
    size = number(b"patch")
    return Snapshot(
        files_changed=files,
        lines_added=added,
        lines_removed=removed,
        commits=number(b"commits"),
        patch_bytes=size,
        patch_missing=_too_long(size, report.get(b"largest", [])) if size > limits.patch_bytes else None,
        left_out=tuple(left_out),
    )


def read_whole(text: bytes) -> Snapshot:
    """Read what git printed: a line of figures, an empty one, the patch; nothing where nothing changed."""
    stat, _, patch = text.partition(b"\n\n")
    files, added, removed = _figures(stat)
    return Snapshot(files_changed=files, lines_added=added, lines_removed=removed, patch_bytes=len(patch), patch=patch)


def _figures(line: bytes) -> tuple[int, ...]:
    """Files changed, lines added, lines removed."""
    found = _STAT.fullmatch(line)
    return tuple(int(figure or 0) for figure in found.groups()) if found else (0, 0, 0)


def _too_long(size: int, largest: list[bytes]) -> str:
    found = [re.fullmatch(rb"(\d{1,15}) (.+)", line) for line in largest[:5]]
    names = ", ".join(f"{shown(match[2])} ({format_size(int(match[1]))})" for match in found if match)
    return f"The patch has {format_size(size)} and is kept as artifacts/changes.patch; the largest in it: {names}."
