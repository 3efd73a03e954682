"""A second sandbox to verify in, with a clean clone and nothing of the agent's but its patch."""

from __future__ import annotations

from tatin_jobs.errors import SandboxError
from tatin_jobs.results import PATCH_FILE
from tatin_jobs.states import Step
from worker.attempt.cloning import clone
from worker.attempt.collecting import COLLECT_TIMEOUT_SECONDS, bring_back
from worker.attempt.creating import create_sandbox, note_sandbox
from worker.attempt.parts import Parts
from worker.attempt.provisioning import connect, push_inputs
from worker.attempt.setting_up import run_setup
from worker.ending import how_it_ended
from worker.patching import apply_patch
from worker.sandboxes.base import Sandbox
from worker.sandboxes.names import verify_name
from worker.sweep import destroy_sandbox


async def begin_afresh(parts: Parts, agents: Sandbox) -> Sandbox:
    """Keep what the agent left, destroy its sandbox, and make another with a clean clone. Never are both there, so
    what is booked for the attempt covers either."""
    await bring_back(parts, agents, COLLECT_TIMEOUT_SECONDS)
    await _give_way(parts, verify_name(parts.name))
    async with parts.step(Step.CREATING):
        sandbox = await create_sandbox(parts)
        await connect(parts, sandbox)
    async with parts.step(Step.CLONING):
        await clone(parts, sandbox)
    return sandbox


async def _give_way(parts: Parts, second: str) -> None:
    """Destroy the agent's sandbox. At any time the journal has one of the two, or both."""
    await note_sandbox(parts, second)
    try:
        async with parts.step(Step.DESTROYING):
            await parts.stack.aclose()
            parts.sandbox = None
            if not await destroy_sandbox(parts.context, parts.name):
                raise SandboxError(f"Sandbox '{parts.name}' cannot be destroyed, so there is no room to verify in.")
        parts.name = second
    finally:
        if parts.name != second:
            parts.context.journal.remove(second)


async def put_work_into(parts: Parts, sandbox: Sandbox) -> str | None:
    """The patch as it was kept, the job's own inputs, and its setup; or why that cannot be."""
    collected, snapshot = parts.facts.collected, parts.facts.snapshot
    if collected is None or collected.patch_bytes is None:
        why = snapshot.patch_missing if snapshot and snapshot.patch_missing else "It was not collected."
        return f"There is no patch to verify on a clean clone. {why}"
    refused = await apply_patch(sandbox, parts.folder / PATCH_FILE) if collected.patch_bytes else None
    if refused:
        return f"The patch does not apply to a clean clone: {refused}"
    await push_inputs(parts, sandbox)
    if parts.spec.setup:
        async with parts.step(Step.SETUP):
            followed, _ = await run_setup(parts, sandbox, parts.spec.setup, output="verify/setup.log")
        if followed.exit_status != 0:
            return f"On a clean clone with the patch, the setup command {how_it_ended(followed)}."
    return None
