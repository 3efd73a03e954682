"""The agent tools that Tatin can run, by the name that ``tool:`` has in a job file. One file per tool beside this."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tatin_jobs.errors import BadInput
from worker.agents.base import AgentAdapter
from worker.agents.claude import ClaudeAdapter
from worker.agents.command import CommandAdapter
from worker.agents.crush import CrushAdapter
from worker.agents.opencode import OpenCodeAdapter
from worker.agents.own import own_adapter
from worker.agents.pi import PiAdapter

ADAPTERS: Mapping[str, type[AgentAdapter]] = {
    adapter.name: adapter for adapter in (ClaudeAdapter, CommandAdapter, CrushAdapter, OpenCodeAdapter, PiAdapter)
}


def adapter(tool: str, own: Collection[str] = ()) -> AgentAdapter:
    """The adapter for ``tool``; ``own``: the classes of the user's that the worker's settings allow.

    Raises:
        BadInput: no such tool.
        AttemptError: a class of the user's that is not allowed, or cannot be loaded.
    """
    if ":" in tool:
        return own_adapter(tool, own)
    if tool not in ADAPTERS:
        raise BadInput(
            f"There is no agent tool '{tool}'.", try_="write `tool:` with one of: " + ", ".join(sorted(ADAPTERS)) + "."
        )
    return ADAPTERS[tool]()
