"""``exec``: a command in the guest through its guest agent. Flags stand before the name, there is no ``--``, and no
shell is involved."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time

from tests.standins.tart.addresses import address_of
from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure, not_running
from tests.standins.tart.running import filled, guest_fields
from tests.standins.tart.storage import Home


def execute(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    vm = home.vm(options.name)
    if vm.running_pid() is None:
        raise not_running(options.name)
    address = address_of(home, dials, vm)
    agent = dials.get("guest", {}).get("exec")
    if agent is None or dials.get("agent") is False or address is None:
        time.sleep(dials.seconds("agent_seconds", 10))
        text = "Failed to connect to the VM using its control socket: connection refused"
        raise TartFailure(f"{text}, is the Tart Guest Agent running?")
    fields = guest_fields(vm, vm.config, address) | {"command": shlex.join(options.command)}
    stdin = None if options.interactive else subprocess.DEVNULL
    status = subprocess.run(filled(agent, fields), stdin=stdin, check=False).returncode
    sys.exit(255 if status < 0 else status)
