"""``tatin worker``: take jobs on this host until told to stop."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tatin_jobs.cli.output import say, warn
from tatin_jobs.errors import BadInput
from tatin_jobs.home import Home
from tatin_jobs.log import set_up_logging
from tatin_jobs.models import Offer
from tatin_jobs.needs import at_once
from tatin_jobs.settings import Settings, load_settings
from tatin_jobs.submitting import default_need
from tatin_jobs.units import MIB, format_size, parse_size


def command(
    cpus: Annotated[
        int | None, typer.Option("--cpus", metavar="N", help="CPUs to offer; default: twice the host's.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Memory to offer, as 8GiB; default: three quarters.")
    ] = None,
    slots: Annotated[int | None, typer.Option("--slots", metavar="N", help="Jobs at once, at most.")] = None,
    sandbox: Annotated[
        str | None, typer.Option("--sandbox", metavar="KIND", help="The kind of sandbox, or auto.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its name; default: the host's.")] = None,
) -> int:
    """Take jobs and run them. The first Ctrl-C drains: what runs may end; the second hands it back."""
    from worker.capacity import offer_of
    from worker.main import run_worker
    from worker.sandboxes import choose_provider

    flags = {
        "cpus": cpus,
        "memory_mib": _mib(memory),
        "slots": slots,
        "sandbox": sandbox,
        "worker_name": name,
    }
    settings = load_settings(os.environ, flags)
    home = Home(settings.home)
    home.prepare()
    set_up_logging(home.root / "worker.log", terminal=True)
    provider = choose_provider(settings.sandbox, home, home.id())
    say(_offered(settings, provider.kind, offer_of(settings, provider.kind)))
    if warning := provider.capabilities.egress_warning:
        warn(f"network rules of jobs do not all hold here: {warning}.")
    return run_worker(settings)


def _mib(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text) // MIB
    except ValueError as error:
        raise BadInput(f"--memory: {error}.") from error


def _offered(settings: Settings, kind: str, offer: Offer) -> str:
    count = at_once(default_need(settings), offer)
    return (
        f"worker '{settings.worker_name}' ({kind}): {offer.cpus} CPUs, {format_size(offer.memory_mib * MIB)} memory,"
        f" {format_size(offer.disk_mib * MIB)} disk, {offer.slots} slots; {count} of the default job run at once here"
    )
