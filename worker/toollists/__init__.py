"""The ready-made lists of ``network.allow``: which hosts a tool in the sandbox is set up to use, asked of the tool."""

from worker.toollists.ask import ToolList, ask

__all__ = ["ToolList", "ask"]
