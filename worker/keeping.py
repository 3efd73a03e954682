"""A job's virtual machine that stays when the job has ended: stopped, noted, and no more the attempt's."""

from __future__ import annotations

import asyncio
import logging

from tatin_jobs.errors import SandboxError
from tatin_jobs.models import Need
from worker.context import Context
from worker.kept import KeptNotes, note_of_job

log = logging.getLogger(__name__)


async def keep_sandbox(context: Context, name: str, job: str, need: Need) -> bool:
    """Stop it and leave it for ``tatin attach``, its memory and CPUs free; False when that cannot be, and then it is to
    be destroyed."""
    notes = KeptNotes(context.home.kept)
    try:
        await asyncio.to_thread(notes.add, note_of_job(name, context.provider.kind, job, need))
        await context.provider.stop(name)
    except (SandboxError, OSError) as error:
        log.warning("action=keep sandbox=%s failed: %s", name, error)
        await asyncio.to_thread(notes.remove, name)
        return False
    log.info("action=keep sandbox=%s", name)
    await asyncio.to_thread(context.journal.remove, name)
    context.lingering.remove(name)
    return True
