"""The command line: what is parsed, what each command is called with, and how a failure is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from tests.standins.tart import addresses, copying, executing, images, running, showing
from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure, UsageFailure
from tests.standins.tart.storage import Home

VERSION = "2.35.0"
Command = Callable[[Home, Dials, argparse.Namespace], None]

_SWITCHES = (
    "no-graphics graphics vnc vnc-experimental serial no-audio no-clipboard no-pointer no-keyboard nested recovery"
    " suspendable net-softnet net-host"
).split()
_VALUES = (
    "serial-path rosetta root-disk-opts net-bridged net-softnet-allow net-softnet-block net-softnet-expose"
    " net-softnet-control-fd"
).split()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageFailure(message, self.prog.partition(" ")[2])


def main(arguments: Sequence[str]) -> NoReturn:
    """Run one command and end the process."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        if list(arguments) == ["--version"]:
            print(VERSION)
            sys.exit(0)
        ours, guests = _guest_command(list(arguments))
        options = _parser().parse_args(ours, argparse.Namespace(command=guests))
        home = Home()
        dials = Dials(home.path)
        if options.called not in ("clone", "pull"):
            home.collect_garbage()
            if dials.get("gc_fails"):
                print("Failed to perform garbage collection: The file couldn't be removed.", file=sys.stderr)
        options.run(home, dials, options)
        sys.exit(0)
    except TartFailure as failure:
        print(failure.text, file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        print("Error: cancelled", file=sys.stderr)
        sys.exit(1)


def _guest_command(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(what is Tart's, the guest's command): all that stands behind the name of ``exec`` is the guest's."""
    if arguments[:1] == ["exec"]:
        for index, argument in enumerate(arguments[1:], 1):
            if not argument.startswith("-"):
                return arguments[: index + 1], arguments[index + 1 :]
    return arguments, []


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tart", add_help=False, allow_abbrev=False)
    commands = parser.add_subparsers(dest="called", required=True, parser_class=_Parser)

    def add(called: str, run: Command, *positional: str) -> argparse.ArgumentParser:
        command = commands.add_parser(called, add_help=False, allow_abbrev=False)
        command.set_defaults(run=run)
        for name in positional:
            command.add_argument(name)
        return command

    clone = add("clone", copying.clone, "source_name", "new_name")
    clone.add_argument("--insecure", action="store_true")
    clone.add_argument("--concurrency", type=int, default=4)
    clone.add_argument("--prune-limit", type=int, default=100)
    create = add("create", copying.create, "name")
    create.add_argument("--linux", action="store_true", required=True)
    create.add_argument("--disk-size", type=int, default=50)
    change = add("set", copying.set_vm, "name")
    for name in ("--cpu", "--memory", "--disk-size"):
        change.add_argument(name, type=int)
    change.add_argument("--display")
    change.add_argument("--random-mac", action="store_true")
    add("rename", copying.rename, "name", "new_name")
    add("delete", copying.delete).add_argument("name", nargs="+")
    add("suspend", copying.suspend, "name")
    add("stop", copying.stop, "name").add_argument("-t", "--timeout", type=int, default=30)
    _add_run(add("run", running.run, "name"))
    ip = add("ip", addresses.ip, "name")
    ip.add_argument("--wait", type=int, default=0)
    ip.add_argument("--resolver", choices=("dhcp", "arp", "agent"), default="dhcp")
    execute = add("exec", executing.execute, "name")
    execute.add_argument("-i", dest="interactive", action="store_true")
    execute.add_argument("-t", dest="tty", action="store_true")
    show = add("list", showing.list_vms)
    show.add_argument("--source", choices=("local", "oci"))
    show.add_argument("--format", choices=("text", "json"), default="text")
    show.add_argument("-q", "--quiet", action="store_true")
    add("get", showing.get, "name").add_argument("--format", choices=("text", "json"), default="text")
    pull = add("pull", images.pull, "remote_name")
    pull.add_argument("--insecure", action="store_true")
    pull.add_argument("--concurrency", type=int, default=4)
    prune = add("prune", images.prune)
    prune.add_argument("--entries", choices=("caches", "vms"), default="caches")
    prune.add_argument("--older-than", type=int)
    prune.add_argument("--space-budget", type=int)
    add("fqn", images.fqn, "name")
    return parser


def _add_run(command: argparse.ArgumentParser) -> None:
    for name in _SWITCHES:
        command.add_argument(f"--{name}", action="store_true")
    for name in _VALUES:
        command.add_argument(f"--{name}")
    command.add_argument("--disk", action="append", default=[])
    command.add_argument("--dir", action="append", default=[])
