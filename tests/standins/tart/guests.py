"""Which programs are a VM's guest: those that a dial names; or QEMU with a real system, where ``nvram.bin`` (in a Tart
VM the firmware's variables, so what it boots from) names one. Neither: a guest is a process that waits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.standins.tart.addresses import address_of
from tests.standins.tart.dials import Dials
from tests.standins.tart.storage import VM, Home

FOLDER = "guest"
"""In a VM's folder, while it runs: all that its QEMU has."""
AGENT_NOTE = "agent"
"""In there, from when its guest agent listens: the address where."""
AGENT_PORT = 8022


def boot_source(vm: VM) -> dict[str, Any]:
    """What ``nvram.bin`` says (``qemu_guest.py`` writes it); empty for a VM without a real system."""
    try:
        found: dict[str, Any] = json.loads((vm.path / "nvram.bin").read_bytes())
    except ValueError:
        return {}
    return found


def programs(dials: Dials, vm: VM) -> Mapping[str, Sequence[str]]:
    """``argv``, ``exec`` and ``power_button`` as ``dials.py`` has them, as far as this guest has them."""
    turned: Mapping[str, Sequence[str]] | None = dials.get("guest")
    source = boot_source(vm)
    if turned is not None or not source:
        return turned or {}
    root = str(Path(__file__).parents[3])
    run = ["env", f"PYTHONPATH={root}", source["python"], "-m", "tests.standins.tart.qemu_guest"]
    return {
        "argv": [*run, "{folder}", "{name}", "{address}", "{cpus}", "{memory_mib}", "{network}"],
        "exec": _over_ssh(source["key"]),
        "power_button": ["sh", "-c", "kill -s USR2 {guest}"],
    }


def _over_ssh(key: str) -> Sequence[str]:
    """The guest agent's own server, beside the system's: what SSH's keys are, and whether it runs, is nothing to it."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    options += ["ServerAliveInterval=10", "ServerAliveCountMax=3"]  # a machine that is gone says nothing
    given = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", key, "-p", str(AGENT_PORT), *given, "agent@{address}", "exec {command}"]


def agent_address(home: Home, dials: Dials, vm: VM) -> str | None:
    """Where the guest agent is reached; None: there is none, or not yet."""
    if dials.get("agent") is False or "exec" not in programs(dials, vm):
        return None
    if dials.get("guest") is not None:
        return address_of(home, dials, vm)
    try:
        return (vm.path / FOLDER / AGENT_NOTE).read_text()
    except FileNotFoundError:
        return None
