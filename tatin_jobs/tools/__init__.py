"""The agent CLIs that this host keeps for its sandboxes: found, listed, and installed at pinned versions.

    <home>/tools/<tool>/<version>/bin/<tool>      on the host
    /opt/tatin/tools/<tool>/bin/<tool>            in a guest that has no image of its own

Never from the user's PATH: what runs unattended is what was pinned and checked.
"""

from tatin_jobs.tools.install import install_tool
from tatin_jobs.tools.installed import GUEST_TOOLS, InstalledTool, find_tool, install_command
from tatin_jobs.tools.pins import TOOLS

__all__ = ["GUEST_TOOLS", "TOOLS", "InstalledTool", "find_tool", "install_command", "install_tool"]
