"""What is kept of a guest, out of it: first the agent dead, then the snapshot, then all of it within a time."""

from __future__ import annotations

import asyncio

from tatin_jobs.errors import AttemptError
from tatin_jobs.states import Step
from worker.attempt.parts import Parts
from worker.collect import CollectLimits, CollectSpec, collect, snapshot
from worker.ending import os_failure
from worker.sandboxes.base import Sandbox

COLLECT_TIMEOUT_SECONDS = 30 * 60
HURRIED_COLLECT_SECONDS = 30
"""When the attempt was interrupted."""
COLLECT_MARGIN_SECONDS = 10
"""What collecting keeps of its time for making durable what came."""


async def bring_back(parts: Parts, sandbox: Sandbox, seconds: float) -> None:
    """The collecting step. Raises AttemptError when not all came."""
    try:
        async with asyncio.timeout(seconds), parts.step(Step.COLLECTING):
            await _pull(parts, sandbox, seconds)
    except TimeoutError as error:
        raise AttemptError(f"Collecting took longer than {seconds} s.") from error
    except OSError as error:
        raise os_failure(error) from error


async def take_snapshot(parts: Parts, sandbox: Sandbox) -> None:
    """The repository as the agent left it, which the patch is made of."""
    verify = parts.spec.verify
    last = verify is None or verify.where == "fresh"  # that runs in another sandbox
    parts.facts.snapshot = await snapshot(sandbox, _collect_spec(parts), last=last)


async def _pull(parts: Parts, sandbox: Sandbox, seconds: float) -> None:
    """Everything that is kept, within this time: what came whole by then is kept."""
    if parts.facts.patch is None:  # with all of it here, nothing that runs there matters
        await sandbox.kill_all()
    parts.facts.saw_usage(await sandbox.usage())
    if parts.facts.snapshot is None and parts.facts.commit is not None:
        await take_snapshot(parts, sandbox)
    limits = CollectLimits(total_bytes=parts.context.settings.artifact_limit_mib * 2**20)
    parts.facts.collected = await collect(
        sandbox,
        _collect_spec(parts),
        parts.folder,
        limits,
        taken=parts.facts.snapshot,
        timeout_seconds=max(5, seconds - COLLECT_MARGIN_SECONDS),
        unpackers=parts.context.unpackers,
    )


def _collect_spec(parts: Parts) -> CollectSpec:
    return CollectSpec(
        base_commit=parts.facts.commit,
        base_tar=parts.base_tar,
        artifact_globs=parts.spec.artifacts,
        transcript_paths=tuple(parts.plan.transcript_paths),
    )
