"""The job's setup command, before the agent and once more before a fresh verify."""

from __future__ import annotations

from tatin_jobs.errors import AttemptError
from tatin_jobs.results import CommandFacts
from tatin_jobs.states import Reason
from worker.attempt.job_line import run_line
from worker.attempt.parts import Parts
from worker.ending import how_it_ended
from worker.followed import Followed
from worker.sandboxes.base import Sandbox

SETUP_TIMEOUT_SECONDS = 30 * 60


async def set_up(parts: Parts, sandbox: Sandbox, line: str) -> None:
    """Set the guest up for the agent. Raises AttemptError, reason setup: the command failed."""
    followed, parts.facts.setup = await run_setup(parts, sandbox, line)
    if followed.exit_status != 0:
        raise AttemptError(f"The setup command {how_it_ended(followed)}.", reason=Reason.SETUP)


async def run_setup(
    parts: Parts, sandbox: Sandbox, line: str, *, output: str | None = None
) -> tuple[Followed, CommandFacts]:
    """Run it with the network that the job gives to setup. ``output``: as for ``run_line``."""
    await parts.network.enter("setup")
    return await run_line(parts, sandbox, "setup", line, SETUP_TIMEOUT_SECONDS, output=output)
