"""``tatin release``."""

from __future__ import annotations

from typing import Annotated

import typer

from tatin_jobs.cli.options import JobsOrBatchesIfAny, Labels, WholeQueue
from tatin_jobs.cli.output import say
from tatin_jobs.cli.picking import check_picks, for_each, pick, pick_by_labels
from tatin_jobs.cli.session import open_session
from tatin_jobs.errors import EXIT_OK, UnknownId
from tatin_jobs.gates import GateKind
from tatin_jobs.models import Job
from tatin_jobs.states import HeldFor, JobState
from tatin_jobs.store import Store


def command(
    ids: JobsOrBatchesIfAny = [],  # noqa: B006
    labels: Labels = [],  # noqa: B006
    queue: WholeQueue = False,
    account: Annotated[
        str | None, typer.Option("--account", metavar="NAME", help="All jobs of an account that is at its limit.")
    ] = None,
) -> int:
    """Let held jobs go.

    A job that a person holds goes back to what else it waits for: a time, other jobs, a limit. Named by its id, a job
    that waits for such a thing is queued all the same.
    """
    check_picks(ids, labels, queue, account)
    with open_session() as session:
        store = session.store
        if queue:
            say(f"the queue {'is released' if store.release_queue() else 'was not held'}")
            return EXIT_OK
        if account is not None:
            _open_account(store, account)
            return EXIT_OK

        def release(job: Job) -> str:
            after = store.release(job.id)
            waits = f"held ({after.held_for})" if after.state is JobState.HELD else str(after.state)
            return f"{job.id}: {waits}"

        picked = [*pick(store, ids), *pick_by_labels(store, labels)]
        return for_each(picked, release, fits=_is_held)


def _is_held(job: Job) -> bool:
    """What a release of a batch or a label means; a limit, and jobs that others need, are not for a whole batch."""
    return job.state is JobState.HELD and job.held_for in (HeldFor.PERSON, HeldFor.TIME)


def _open_account(store: Store, account: str) -> None:
    held = {gate.name: gate.id for gate in store.gates() if gate.kind is GateKind.ACCOUNT}
    if account not in held:
        raise UnknownId(
            f"No account {account[:60]!r} is held.",
            seen=f"held: {', '.join(held) or 'none'}",
            try_="`tatin list` shows what is held.",
        )
    store.open_gate(held[account])
    say(f"account {account}: released")
