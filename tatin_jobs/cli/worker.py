"""``tatin worker``: take jobs on this host until told to stop."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from tatin_jobs.cli.output import say, warn
from tatin_jobs.errors import EXIT_MISSING, EXIT_OK, BadInput
from tatin_jobs.home import Home
from tatin_jobs.log import set_up_logging
from tatin_jobs.models import Offer
from tatin_jobs.needs import at_once
from tatin_jobs.settings import Settings, load_settings
from tatin_jobs.submitting import default_need
from tatin_jobs.units import MIB, format_size, parse_size


class Action(StrEnum):
    """What to do with the worker as a service."""

    INSTALL = "install"
    UNINSTALL = "uninstall"


def command(
    action: Annotated[
        Action | None,
        typer.Argument(metavar="[ACTION]", help="install: as a service of this user, with these options; uninstall."),
    ] = None,
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
    if action is not None:
        given = {"--cpus": cpus, "--memory": memory, "--slots": slots, "--sandbox": sandbox, "--name": name}
        flags = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
        return _as_service(action, flags)
    from worker.capacity import below_floor, offer_of
    from worker.main import run_worker
    from worker.sandboxes import choose_provider

    wanted = {
        "cpus": cpus,
        "memory_mib": _mib(memory),
        "slots": slots,
        "sandbox": sandbox,
        "worker_name": name,
    }
    settings = load_settings(os.environ, wanted)
    home = Home(settings.home)
    home.prepare()
    set_up_logging(home.root / "worker.log", terminal=True)
    provider = choose_provider(settings, home, home.id())
    say(_offered(settings, provider.kind, offer_of(settings, provider.kind)))
    if short := below_floor(settings):
        warn(f"no job starts here: {short}.")
    if warning := provider.capabilities.egress_warning:
        warn(f"network rules of jobs do not all hold here: {warning}.")
    return run_worker(settings)


def _as_service(action: Action, flags: list[str]) -> int:
    from worker.service import install, service, uninstall

    settings = load_settings(os.environ)
    home = Home(settings.home)
    wanted = service(settings, flags)
    if wanted.path.exists():
        say("one is there; it ends when what it runs has ended")
    if action is Action.UNINSTALL:
        home.reach.unlink(missing_ok=True)
        removed = uninstall(wanted)
        say("✓ the service has ended and is removed" if removed else f"No service is installed: no {wanted.path}")
        return EXIT_OK
    home.reach.unlink(missing_ok=True)
    install(wanted, settings)
    say(f"✓ {wanted.path}\n  look at it: {wanted.look}")
    if wanted.hint:
        say(f"  {wanted.hint}")
    return _tell_reach(home) if wanted.tells_reach else EXIT_OK


def _tell_reach(home: Home) -> int:
    """What the service says of its guests, when it has tried."""
    from worker.reach import wait_for_reach

    say("it makes one machine to see whether it reaches guests; where macOS asks for the local network, allow it")
    reach = wait_for_reach(home)
    if reach is None:
        warn("the service has said nothing yet; look at it as above.")
        return EXIT_MISSING
    found = reach.finding
    say(f"{'✓' if found.ok else '✗'} {found.seen}")
    if found.fix:
        say(f"  {found.fix}; it takes no job until then")
    return EXIT_OK if found.ok else EXIT_MISSING


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
