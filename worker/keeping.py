"""A job's virtual machine that stays when the job has ended: stopped, noted, and no more the attempt's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from tatin_jobs.errors import SandboxError
from tatin_jobs.models import Need
from worker.context import Context
from worker.journal import Entry
from worker.kept import KeptNotes, is_running, note_of_job

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


async def finish_keeping(context: Context, entries: Sequence[Entry]) -> None:
    """Stop the machines that a worker was killed over while it stopped them, of those in its journal: else they run on
    for as long as they are kept, and nothing else has room."""
    kept = KeptNotes(context.home.kept).names(datetime.now(UTC))
    for entry in entries:
        if entry.sandbox not in kept:
            continue
        if is_running(context.home, entry.sandbox):
            await keep_sandbox(context, entry.sandbox, entry.job, entry.need)
        else:
            context.journal.remove(entry.sandbox)
