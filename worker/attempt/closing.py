"""The end of an attempt, the same however it ended: collected, durable, accepted, destroyed (I7)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from tatin_jobs.errors import AttemptError, DiskFull, SandboxError
from tatin_jobs.results import Result, write_result
from tatin_jobs.states import JobState, Outcome
from worker.acceptance import accept
from worker.attempt.collecting import COLLECT_TIMEOUT_SECONDS, HURRIED_COLLECT_SECONDS, bring_back
from worker.attempt.parts import Parts
from worker.control import Interruption, Stop
from worker.ending import Ending, failed_by, interrupted_by, os_failure
from worker.holds import seen_at
from worker.keeping import keep_sandbox
from worker.kept import is_kept
from worker.sweep import destroy_sandbox

log = logging.getLogger(__name__)


async def collect_results(parts: Parts, ending: Ending) -> tuple[Ending, Result]:
    """Bring back what can still be read and make it durable; ``result.json`` comes last.

    Returns the ending that counts by then, and what ``result.json`` holds.
    """
    sandbox, interruption = parts.sandbox, parts.control.interruption
    gone = interruption is not None and interruption.stop in (Stop.DIED, Stop.LOST)
    if sandbox is not None and parts.facts.collected is None and not gone:
        try:
            await bring_back(parts, sandbox, HURRIED_COLLECT_SECONDS if interruption else COLLECT_TIMEOUT_SECONDS)
        except AttemptError as error:
            ending = _not_collected(ending, error)
    elif gone and parts.facts.collected is None and ending.outcome is Outcome.SUCCEEDED:
        text = "The sandbox died before its results were collected."
        ending = failed_by(SandboxError(text))
    if parts.gateway:
        await parts.gateway.close()
    await parts.network.close()
    ending = replace(ending, route=seen_at(parts.gateway.usage if parts.gateway else None))
    result = _result(parts, ending, ending.planned_state, accepted=True)
    try:  # nothing is accepted that is not on the disk (I7)
        await asyncio.to_thread(write_result, parts.folder, result)
    except OSError as error:
        ending = replace(_not_collected(ending, os_failure(error)), route=ending.route)
    return ending, result


def shown(parts: Parts, ending: Ending) -> Ending:
    """What an error quoted may hold a secret; from here it goes to the store."""
    return replace(ending, message=parts.context.redactor.text(ending.message))


async def accept_ending(parts: Parts, ending: Ending, result: Result) -> None:
    """Have the store accept the ending; a refused or returned attempt is kept as what it is."""
    summary = result.summary(parts.folder)
    state = await accept(parts.context.store, parts.lease, ending, summary, parts.control, parts.outbox.left)
    stopped = parts.control.interruption
    if state is not JobState.FINISHED:
        if stopped and stopped.stop is Stop.LOST:
            ending = interrupted_by(stopped)
        _write_result(parts, ending, state or ending.planned_state, accepted=False)
    elif parts.control.overruled and stopped:  # the cancel or the deadline was accepted first
        _write_result(parts, interrupted_by(Interruption(parts.control.overruled)), state, accepted=True)


async def destroy(parts: Parts, outcome: Outcome | None) -> None:
    """Close what is open, then destroy the sandbox, or leave it to the sweep; a machine that the job keeps is stopped.

    ``outcome`` None: the attempt came to none that was accepted.
    """
    try:
        await parts.stack.aclose()
    except Exception:
        log.exception("action=close sandbox=%s failed", parts.name)
    if parts.sandbox and outcome and is_kept(parts.spec.keep, outcome):
        if await keep_sandbox(parts.context, parts.name, parts.lease.job.id, parts.need):
            return
    await destroy_sandbox(parts.context, parts.name)


def _result(parts: Parts, ending: Ending, state: JobState, *, accepted: bool) -> Result:
    worker = parts.context.settings.worker_name
    result = parts.facts.result(ending, worker, parts.events, state, accepted=accepted)
    redactor = parts.context.redactor
    return Result.model_validate(redactor.tree(result.model_dump())) if redactor.longest else result


def _write_result(parts: Parts, ending: Ending, state: JobState, *, accepted: bool) -> None:
    try:
        write_result(parts.folder, _result(parts, ending, state, accepted=accepted))
    except OSError as error:
        log.error("action=result job=%s failed: %s", parts.lease.job.id, error)  # noqa: TRY400


def _not_collected(ending: Ending, error: AttemptError) -> Ending:
    """Success without its results is no success; another ending stays what it was, and says so."""
    if ending.outcome is Outcome.SUCCEEDED or isinstance(error, DiskFull):
        return failed_by(error)
    return replace(ending, message=f"{ending.message} Not all was collected: {error.what}")
