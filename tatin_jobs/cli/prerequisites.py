"""What ``tatin run`` looks at before it submits, so that nothing is left half done. Only ``run`` uses it: here, inside
functions, the client side reaches for the worker's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tatin_jobs.errors import AttemptError, BadInput, Missing
from tatin_jobs.home import Home
from tatin_jobs.needs import at_once
from tatin_jobs.settings import ModelProvider, Settings
from tatin_jobs.submitting import why_never

if TYPE_CHECKING:
    from tatin_jobs.models import JobSpec, Offer, WorkerInfo
    from tatin_jobs.spec import ReadJob


def worker_runs(home: Home) -> bool:
    """Whether a worker holds this home."""
    from worker.main import home_lock

    home.prepare()
    try:
        with home_lock(home):
            return False
    except BadInput:
        return True


def check_host(settings: Settings, home: Home) -> Offer:
    """What a worker of this home would offer.

    Raises:
        PartMissing: there is no sandbox that works here. BadInput: there is no such kind. Missing: the disk is full.
    """
    from worker.capacity import below_floor, offer_of
    from worker.sandboxes import choose_provider

    if short := below_floor(settings):
        raise Missing(f"No job can run on this host: {short}.", try_="`tatin prune`, or set TATIN_DISK_FLOOR lower.")
    return offer_of(settings, choose_provider(settings, home, home.id()).kind)


def check_jobs(read: Sequence[ReadJob], settings: Settings, offer: Offer) -> None:
    """Whether this host can run each of these at all.

    Raises:
        PartMissing: a tool is not installed. Missing: a job needs more than this host has, or a model server that its
            settings do not name, or that is to run on this host and does not. BadInput: a model server's key is not
            set.
    """
    for item in read:
        _check_tool(item.spec, settings, offer)
        _check_model(item.spec, settings)
        if at_once(item.need, offer) == 0:
            raise Missing(
                f"Job '{item.spec.name}' of {item.source} can never run on this host.",
                seen=f"it needs {_need_text(item)}; the host offers {_offer_text(offer)}",
                try_="ask for less in `resources` or `requires`, or `tatin submit` it for another worker.",
            )


def check_workers(read: Sequence[ReadJob], workers: Sequence[WorkerInfo], settings: Settings) -> None:
    """Whether a worker that runs can take each of these: whoever follows a job must not wait for what never comes. Of
    this home's own worker, which has these settings, also whether it has the tool and the model server.

    Raises:
        Missing: none can. PartMissing: a tool is not installed. BadInput: there is no such model server.
    """
    own = workers[0].offer if [info.name for info in workers] == [settings.worker_name] else None
    for item in read:
        if why := why_never(item.need, workers):
            raise Missing(
                f"Job '{item.spec.name}' of {item.source} would wait for ever.",
                seen=why,
                try_="ask for less in `resources` or `requires`, or `tatin submit` it for another worker.",
            )
        if own:
            _check_tool(item.spec, settings, own)
            _model_server(item.spec, settings)


def _check_tool(spec: JobSpec, settings: Settings, offer: Offer) -> None:
    from tatin_jobs.tools import find_tool
    from worker.agents import adapter
    from worker.sandboxes import has_own_image

    with _missing():
        packages = adapter(spec.tool, settings.agent_classes).tool_packages
    if has_own_image(offer):  # the tools are in there
        return
    for package in packages:
        find_tool(Home(settings.home), package, settings.agent(package).version)


def _check_model(spec: JobSpec, settings: Settings) -> None:
    from worker.gateway.local_servers import start_command, why_silent

    provider = _model_server(spec, settings)
    if provider is None:
        return
    provider.key()
    with _missing():
        why = why_silent(provider)
    if why:
        raise Missing(
            f"The model server of job '{spec.name}' at {provider.base_url} does not run.",
            seen=why,
            try_=start_command(provider) or "start it, or name another in `model`.",
        )


def _model_server(spec: JobSpec, settings: Settings) -> ModelProvider | None:
    from worker.agents import adapter
    from worker.gateway import select_provider, speaking

    if spec.model is None:
        return None
    with _missing():
        name, provider = select_provider(settings, spec.model)
        speaking(name, provider, spec.tool, adapter(spec.tool, settings.agent_classes).apis)
    return provider


@contextmanager
def _missing() -> Iterator[None]:
    """What would end the attempt is told before it begins."""
    try:
        yield
    except AttemptError as error:
        raise Missing(error.what, seen=error.seen, try_=error.try_) from error


def _offer_text(offer: Offer) -> str:
    parts = [f"{offer.cpus} CPUs", f"{offer.memory_mib} MiB of memory", f"{offer.disk_mib} MiB of disk", *offer.tags]
    return ", ".join(parts)


def _need_text(item: ReadJob) -> str:
    need = item.need
    parts = [(need.cpus, "CPUs", need.cpus_wish), (need.memory_mib, "MiB of memory", need.memory_wish)]
    parts.append((need.disk_mib, "MiB of disk", need.disk_wish))
    return ", ".join([*(f"{value} {unit}" for value, unit, wish in parts if not wish), *need.tags]) or "nothing special"
