"""One attempt, from create to destroy, as the list of its steps. What each does is in ``worker/attempt/``.

The order at the end is fixed (I7): agent dead, collect, durable, accepted, destroy, capacity free. It is the same on
success, failure, timeout, cancel and shutdown: what can still be read is brought back first.
"""

from __future__ import annotations

import asyncio
import logging

from tatin_jobs.errors import AttemptError, TatinError
from tatin_jobs.models import Lease
from tatin_jobs.states import Outcome, Reason, Step
from worker.adoption import Adopted
from worker.attempt.agent_step import run_agent
from worker.attempt.cloning import clone
from worker.attempt.closing import accept_ending, collect_results, destroy, shown
from worker.attempt.creating import create_sandbox
from worker.attempt.going_on import take_over
from worker.attempt.judging import oom_or
from worker.attempt.parts import Parts
from worker.attempt.provisioning import provision
from worker.attempt.setting_up import set_up
from worker.attempt.verifying import verify_work
from worker.context import Context
from worker.control import Control, Interrupted
from worker.ending import Ending, excused, failed_by, interrupted_by, os_failure
from worker.sandboxes.base import Sandbox
from worker.verdicts import decide

LAST_SIGNAL_SECONDS = 0.3

log = logging.getLogger(__name__)


class Attempt:
    """Runs one lease. Made and run in the event loop; ``run`` raises only when the loop itself is cancelled."""

    def __init__(self, context: Context, lease: Lease, control: Control, adopted: Adopted | None = None) -> None:
        self._parts = Parts(context, lease, control, adopted)

    async def run(self) -> None:
        """Run it to its end; then the job is finished, queued or held, and the sandbox gone or left to the sweep."""
        parts, outcome = self._parts, None
        try:
            async with parts.outbox:
                ending, result = await collect_results(parts, await self._excuse(await self._work()))
            ending = shown(parts, ending)
            await accept_ending(parts, ending, result)
            outcome = ending.outcome
        finally:
            await destroy(parts, outcome)

    async def _work(self) -> Ending:
        """The steps up to the verdict, or what became of them."""
        try:
            return await self._run_or_stop()
        except AttemptError as error:
            return failed_by(error)
        except OSError as error:
            return failed_by(os_failure(error))
        except TatinError as error:
            return Ending(Outcome.FAILED, Reason.WORKER, str(error))
        except Exception as error:
            lease = self._parts.lease
            log.exception("action=fault job=%s attempt=%d", lease.job.id, lease.attempt)
            text = f"A fault in Tatin itself ({type(error).__name__}); the worker's log has it."
            return Ending(Outcome.FAILED, Reason.WORKER, text)

    async def _run_or_stop(self) -> Ending:
        """The steps, given up at once when somebody asks or the sandbox dies."""
        control = self._parts.control
        try:
            return await control.run(self._run_steps())
        except Interrupted:
            assert control.interruption is not None  # by which it was
            return await oom_or(self._parts, interrupted_by(control.interruption))

    async def _excuse(self, ending: Ending) -> Ending:
        """What failed because the whole machine goes down is handed back; the worker's own signal may come a moment
        after the one that ended the sandbox."""
        if excused(ending) is ending:
            return ending
        await asyncio.sleep(LAST_SIGNAL_SECONDS)
        return excused(ending) if self._parts.control.draining else ending

    async def _run_steps(self) -> Ending:
        parts = self._parts
        parts.folder.mkdir(parents=True, exist_ok=True)
        sandbox = await (take_over(parts, parts.adopted) if parts.adopted else self._begin())
        async with parts.step(Step.AGENT):
            verdict = await run_agent(parts, sandbox)
        if not parts.spec.verify or verdict.outcome not in (Outcome.SUCCEEDED, Outcome.TIMED_OUT):
            return decide(verdict, None)
        return decide(verdict, await verify_work(parts, sandbox, parts.spec.verify))

    async def _begin(self) -> Sandbox:
        """All that comes before the agent."""
        parts = self._parts
        async with parts.step(Step.CREATING):
            sandbox = await create_sandbox(parts)
        async with parts.step(Step.PROVISIONING):
            await provision(parts, sandbox)
        async with parts.step(Step.CLONING):
            await clone(parts, sandbox)
        if parts.spec.setup:
            async with parts.step(Step.SETUP):
                await set_up(parts, sandbox, parts.spec.setup)
        return sandbox
