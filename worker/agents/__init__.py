"""The agent tools that Tatin can run, by the name that ``tool:`` has in a job file. One file per tool beside this."""

from __future__ import annotations

from collections.abc import Mapping

from tatin_jobs.errors import BadInput
from worker.agents.base import AgentAdapter
from worker.agents.claude import ClaudeAdapter
from worker.agents.command import CommandAdapter
from worker.agents.opencode import OpenCodeAdapter
from worker.agents.pi import PiAdapter

ADAPTERS: Mapping[str, type[AgentAdapter]] = {
    adapter.name: adapter for adapter in (ClaudeAdapter, CommandAdapter, OpenCodeAdapter, PiAdapter)
}


def adapter(tool: str) -> AgentAdapter:
    """The adapter for ``tool``.

    Raises:
        BadInput: no such tool.
    """
    if tool not in ADAPTERS:
        raise BadInput(
            f"There is no agent tool '{tool}'.", try_="write `tool:` with one of: " + ", ".join(sorted(ADAPTERS)) + "."
        )
    return ADAPTERS[tool]()
