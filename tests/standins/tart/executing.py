"""``exec``: a command in the guest through its guest agent. Flags stand before the name, there is no ``--``, and no
shell is involved."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time

from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure, not_running
from tests.standins.tart.guests import agent_address, programs
from tests.standins.tart.running import filled, guest_fields
from tests.standins.tart.storage import VM, Home

BROKEN = 255
"""How ssh ends when the connection broke; and how a command that a signal killed does."""
LOOK_SECONDS = 0.1
DEATH_SECONDS = 0.5


def execute(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    vm = home.vm(options.name)
    if vm.running_pid() is None:
        raise not_running(options.name)
    address = _wait_for_agent(home, dials, vm)
    fields = guest_fields(vm, vm.config, address) | {"command": shlex.join(options.command)}
    stdin = None if options.interactive else subprocess.DEVNULL
    status = subprocess.run(filled(programs(dials, vm)["exec"], fields), stdin=stdin, check=False).returncode
    if status == BROKEN and _died(vm):
        raise TartFailure("Error: unavailable (14): Transport became inactive")
    sys.exit(255 if status < 0 else status)


def _wait_for_agent(home: Home, dials: Dials, vm: VM) -> str:
    deadline = time.monotonic() + dials.seconds("agent_seconds", 10)
    while (address := agent_address(home, dials, vm)) is None:
        if time.monotonic() >= deadline:
            text = "Failed to connect to the VM using its control socket: connection refused"
            raise TartFailure(f"{text}, is the Tart Guest Agent running?")
        time.sleep(LOOK_SECONDS)
    return address


def _died(vm: VM) -> bool:
    """Whether the VM has ended, or does within a moment: its guest's connections break first."""
    deadline = time.monotonic() + DEATH_SECONDS
    while vm.is_whole() and vm.running_pid() is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True
