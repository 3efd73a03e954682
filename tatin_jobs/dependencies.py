"""``needs``: from the names in a submit to the ids of its jobs, and no job that waits for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from tatin_jobs.errors import AmbiguousId, BadInput, UnknownId
from tatin_jobs.models import JobSpec
from tatin_jobs.store import Store


def needed_ids(store: Store, specs: Sequence[JobSpec], ids: Sequence[str]) -> list[tuple[str, ...]]:
    """The ids that each job waits for, in the order of ``specs``; ``ids`` are those of the jobs themselves.

    A name stands for all jobs of the submit that are called so; anything else is an id that is known, or its beginning.

    Raises:
        BadInput: a name is neither, or jobs need one another in a circle; names the job and what it needs.
    """
    by_name: dict[str, list[str]] = {}
    for spec, job_id in zip(specs, ids, strict=True):
        by_name.setdefault(spec.name, []).append(job_id)
    _check_circles(specs, by_name)
    found: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        for name in spec.needs:
            if name not in found:
                found[name] = tuple(by_name.get(name) or (_known(store, spec.name, name),))
    return [tuple(dict.fromkeys(one for name in spec.needs for one in found[name])) for spec in specs]


def _known(store: Store, job: str, needed: str) -> str:
    try:
        return store.resolve(needed)
    except (UnknownId, AmbiguousId) as error:
        raise BadInput(
            f"Job '{job}' needs '{needed}', which is no job of this submit and no id that is known.",
            seen=error.what,
            try_="correct `needs`; `tatin list --all` shows the ids.",
        ) from error


def _check_circles(specs: Sequence[JobSpec], by_name: Mapping[str, object]) -> None:
    graph: dict[str, set[str]] = {}
    for spec in specs:
        graph.setdefault(spec.name, set()).update(name for name in spec.needs if name in by_name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise BadInput(f"Jobs need one another in a circle: {circle}.", try_="correct `needs`.") from error
