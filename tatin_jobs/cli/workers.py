"""``tatin workers``: who takes jobs."""

from __future__ import annotations

from datetime import datetime

from tatin_jobs.cli.jobs_view import age
from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import cell, console, plain_table, print_json, say
from tatin_jobs.cli.session import now, open_session
from tatin_jobs.models import WorkerInfo
from tatin_jobs.units import MIB, format_size


def command(as_json: AsJson = False) -> None:
    """List the workers.

    What they offer, what they run, and whether they are well.
    """
    with open_session() as session:
        found = [(info, session.store.is_silent(info)) for info in session.store.workers()]
    if as_json:
        print_json({"workers": [{**info.model_dump(mode="json"), "silent": silent} for info, silent in found]})
        return
    if not found:
        say("no worker is running; start `tatin worker`")
        return
    table = plain_table("", "WORKER", "STATUS", "RUNNING", "CPUS", "MEMORY", "DISK", "SANDBOX", "SEEN", right=("CPUS",))
    moment = now()
    for info, silent in found:
        offer = info.offer
        table.add_row(
            cell("✗" if silent or info.problem else "◐" if info.draining else "●"),
            cell(info.name),
            cell(_status(info, silent, moment), limit=200),
            cell(f"{len(info.running)}/{offer.slots}"),
            cell(offer.cpus),
            cell(format_size(offer.memory_mib * MIB)),
            cell(format_size(offer.disk_mib * MIB)),
            cell(info.sandbox),
            cell(f"{age(info.seen_at, moment)} ago" if info.seen_at else "-"),
        )
    console().print(table)


def _status(info: WorkerInfo, silent: bool, moment: datetime) -> str:
    if silent:
        since = f" for {age(info.seen_at, moment)}" if info.seen_at else ""
        return f"no beat{since}: it, its host or its way to the store is gone"
    if info.problem:
        return f"claims nothing: {info.problem}"
    return "draining" if info.draining else "claiming"
