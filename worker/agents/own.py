"""``tool: module:Class``: an adapter of the user's own.

Its code runs in the worker, on the host and outside every sandbox. So a job file alone cannot choose it: only a class
that the worker's settings list (``agent_classes``) is loaded, from the worker's own Python path.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection

from tatin_jobs.errors import AttemptError
from tatin_jobs.states import Reason
from worker.agents.base import AgentAdapter


def own_adapter(tool: str, allowed: Collection[str]) -> AgentAdapter:
    """An instance of the class that ``tool`` names.

    Raises:
        AttemptError: reason refused, this worker's settings do not list it; reason worker, it cannot be loaded, or is
            no ``AgentAdapter``.
    """
    if tool not in allowed:
        raise AttemptError(
            f"This worker does not let jobs use the agent class '{tool}': its settings do not list it.",
            seen="agent_classes = [" + ", ".join(f'"{name}"' for name in sorted(allowed)) + "]",
            try_=f'write agent_classes = ["{tool}"] into the tatin.toml of the worker, if its code is to run there.',
            reason=Reason.REFUSED,
        )
    module, _, name = tool.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except Exception as error:  # whatever a module of the user's raises, the worker goes on
        raise AttemptError(
            f"The agent class '{tool}' cannot be loaded.",
            seen=f"{type(error).__name__}: {error}"[:300],
            try_="start the worker where `python -c 'import " + module + "'` works.",
            reason=Reason.WORKER,
        ) from error
    if not isinstance(made, AgentAdapter):
        raise AttemptError(
            f"The agent class '{tool}' is no worker.agents.base.AgentAdapter.",
            seen=f"it is a {type(made).__name__}",
            reason=Reason.WORKER,
        )
    return made
