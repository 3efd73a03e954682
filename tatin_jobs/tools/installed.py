"""Where an installed agent CLI lies on the host and in a guest."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from tatin_jobs.tools.pins import tool_named

GUEST_TOOLS = "/opt/tatin/tools"
"""The folder of the guest in which each tool's folder is mounted read-only."""


@dataclass(frozen=True)
class InstalledTool:
    """An agent CLI on this host. ``guest_folder`` is where its ``folder`` is mounted in a guest without an image."""

    name: str
    version: str
    folder: Path
    guest_folder: str


def find_tool(home: Home, name: str, version: str | None = None) -> InstalledTool:
    """The tool ``name`` at ``version``; None: at its pinned one.

    Raises:
        PartMissing: that version is not installed; the message has the command that installs it.
        BadInput: there is no such tool.
    """
    tool = tool_named(name).at(version)
    folder = home.tools / name / tool.version
    program = folder / tool.program
    if not os.access(program, os.X_OK):  # the folder appears whole or not at all
        raise PartMissing(
            f"The agent tool '{name}' {tool.version} is not installed on this host.",
            seen=f"there is no program '{program}'",
            try_=f"get it from {tool.by_hand} and put it there." if tool.by_hand else install_command(name),
        )
    return InstalledTool(name, tool.version, folder, f"{GUEST_TOOLS}/{name}")


def install_command(name: str) -> str:
    """What to type to install ``name`` for the home of this environment."""
    return shlex.join([sys.executable, "-m", "tatin_jobs.tools", "install", name])
