"""Addresses: a table of leases by MAC, which knows nothing of whether a VM runs; and ``ip``, which reads it.

Guests get addresses of the host's loopback (127.64.0.0/16), so that several can have a port 22 each.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure
from tests.standins.tart.storage import VM, Home


@contextmanager
def _leases(home: Home) -> Iterator[list[dict[str, Any]]]:
    """The table, locked; what is changed in it is kept."""
    with (home.path / "standin-leases.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        table: list[dict[str, Any]] = json.loads(file.read() or "[]")
        yield table
        file.truncate(0)
        file.write(json.dumps(table))


def take_lease(home: Home, dials: Dials, mac: str) -> str | None:
    """An address for this MAC, its own while that lasts; None: none is left."""
    now = time.time()
    with _leases(home) as table:
        lasting = [lease for lease in table if lease["expires"] > now]
        lease = next((lease for lease in lasting if lease["mac"] == mac), None)
        if lease is None:
            taken = {lease["number"] for lease in lasting}
            number = next((n for n in range(2, 2 + int(dials.get("pool", 250))) if n not in taken), None)
            if number is None:
                return None
            lease = {"mac": mac, "number": number, "address": f"127.64.{number // 256}.{number % 256}"}
            table.append(lease)
        lease["expires"] = now + dials.seconds("lease_seconds", 86_400)
        return str(lease["address"])


def address_of(home: Home, dials: Dials, vm: VM) -> str | None:
    """What the table says of it now, whether it runs or not."""
    if (forced := dials.get("addresses", {}).get(vm.name)) is not None:
        return str(forced)
    mac, now = vm.config["macAddress"], time.time()
    with _leases(home) as table:
        found = [lease for lease in table if lease["mac"] == mac and lease["expires"] > now]
    return str(max(found, key=lambda lease: float(lease["expires"]))["address"]) if found else None


def ip(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    """One try a second, at least one; a try that fails takes a second."""
    vm = home.vm(options.name)
    deadline = time.monotonic() + options.wait
    while True:
        if (address := _resolve(home, dials, vm, options.resolver)) is not None:
            print(address)
            return
        time.sleep(1)
        if time.monotonic() >= deadline:
            raise TartFailure(_no_address(vm, options.resolver))


def _resolve(home: Home, dials: Dials, vm: VM, resolver: str) -> str | None:
    if resolver == "agent" and (dials.get("agent") is False or vm.running_pid() is None):
        return None
    return address_of(home, dials, vm)


def _no_address(vm: VM, resolver: str) -> str:
    text = "no IP address found"
    if vm.running_pid() is None:
        return f"{text}, is your VM running?"
    if resolver == "agent":
        return f"{text} (also make sure that Guest agent for Tart is running inside of a VM)"
    if resolver == "arp":
        return f"{text} (not all Linux distributions are compatible with the ARP resolver)"
    return text
