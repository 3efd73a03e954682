"""Installs and lists the agent CLIs, for the scripts.

python -m tatin_jobs.tools install [TOOL...]    into TATIN_HOME/tools, all without a name; what is there stays
python -m tatin_jobs.tools list                 each tool, its version, and whether it is installed
python -m tatin_jobs.tools npm                  exit 3 when there is no npm to install with
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from tatin_jobs.errors import EXIT_CANCELLED, EXIT_OK, PartMissing, TatinError
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings, load_settings
from tatin_jobs.tools import TOOLS, find_tool, install_tool
from tatin_jobs.tools.npm import find_npm


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code, by the table of ``tatin_jobs.errors``."""
    parser = argparse.ArgumentParser(prog="python -m tatin_jobs.tools", description="The agent CLIs of this host.")
    actions = parser.add_subparsers(dest="action", required=True)
    install = actions.add_parser("install", help="install tools, each at its pinned version or the one in tatin.toml")
    install.add_argument("tool", nargs="*", metavar="TOOL", help=f"of {', '.join(sorted(TOOLS))}; all without one")
    actions.add_parser("list", help="list the tools")
    actions.add_parser("npm", help="print the npm that tools are installed with")
    options = parser.parse_args(argv)
    try:
        settings = load_settings(os.environ)
        if options.action == "npm":
            print(*find_npm())
        elif options.action == "list":
            _list(settings)
        else:
            _install(settings, options.tool or [name for name, tool in sorted(TOOLS.items()) if not tool.by_hand])
    except TatinError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_CANCELLED
    return EXIT_OK


def _install(settings: Settings, names: list[str]) -> None:
    for name in names:
        tool = install_tool(Home(settings.home), name, partial(_tell, name), settings.agent(name).version)
        _tell(name, f"{tool.version} in {tool.folder}")


def _tell(name: str, text: str) -> None:
    print(f"{name}: {text}", flush=True)


def _list(settings: Settings) -> None:
    for name, tool in sorted(TOOLS.items()):
        version = settings.agent(name).version
        try:
            where = str(find_tool(Home(settings.home), name, version).folder)
        except PartMissing:
            place = Path(settings.home, "tools", name, version or tool.version, tool.program)
            where = f"by hand, as {place}, from {tool.by_hand}" if tool.by_hand else "not installed"
        print(f"{name} {version or tool.version} {where}")


if __name__ == "__main__":
    sys.exit(main())
