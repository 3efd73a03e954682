"""The repository into the guest, at the one commit that counts for the whole batch."""

from __future__ import annotations

from worker.attempt.parts import Parts
from worker.patience import ask
from worker.repository import clone_into
from worker.sandboxes.base import Sandbox


async def clone(parts: Parts, sandbox: Sandbox) -> None:
    """Fetch, settle the commit with the batch's other attempts, and unpack it in the guest, with what else is to be
    there."""
    repo = parts.spec.repo
    store, batch, patience = parts.context.store, parts.lease.job.batch, parts.context.settings.cut_off_seconds
    known = repo.commit or await ask(patience, store.resolved_commit, batch, repo)
    prepared = await parts.context.repositories.prepare(repo, ref_commit=known)
    if known is None:
        first = await ask(patience, store.resolve_commit, batch, repo, prepared.commit)
        if first != prepared.commit:  # another worker of the batch was first; its commit counts
            prepared = await parts.context.repositories.prepare(repo, ref_commit=first)
    parts.facts.commit, parts.base_tar = prepared.commit, prepared.tar
    unsent, parts.unsent = parts.unsent, {}
    await clone_into(sandbox, prepared, unsent)
