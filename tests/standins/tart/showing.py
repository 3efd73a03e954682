"""``list`` and ``get``. The order of JSON's keys is not stable in Tart, so it is shuffled here."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure
from tests.standins.tart.images import cached
from tests.standins.tart.storage import GIGABYTE, VM, Home


def list_vms(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    time.sleep(dials.seconds("list_hangs"))
    if not dials.used_up("list_fails"):
        raise TartFailure('Error: The file "disk.img" couldn\'t be opened because there is no such file.')
    if (text := dials.get("list_prints")) is not None:
        print(text)
        return
    rows = list(_rows(home, options.source))
    if options.quiet:
        for row in rows:
            print(row["Name"])
    elif options.format == "json":
        print(_json(rows))
    else:
        print(f"{'Source':<8}{'Name':<40}{'Disk':<6}{'Size':<6}{'Accessed':<22}State")
        for row in rows:
            print(
                f"{row['Source']:<8}{row['Name']:<40}{row['Disk']:<6}{row['Size']:<6}{row['Accessed']:<22}{row['State']}"
            )


def _rows(home: Home, source: str | None) -> Iterator[dict[str, Any]]:
    if source in (None, "local"):
        for vm in home.local():
            yield _row("local", vm.name, vm)
    if source in (None, "oci"):
        for name, vm in cached(home):
            yield _row("OCI", name, vm)


def _row(source: str, name: str, vm: VM) -> dict[str, Any]:
    accessed = datetime.fromtimestamp(int(vm.disk.stat().st_atime), UTC)
    state = vm.state()
    return {
        "Source": source,
        "Name": name,
        "Disk": vm.disk_bytes() // GIGABYTE,
        "Size": vm.allocated_bytes() // GIGABYTE,
        "Accessed": accessed.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Running": state == "running",
        "State": state,
    }


def get(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    vm = home.vm(options.name)
    config = vm.config
    state = vm.state()
    shown = {
        "OS": config["os"],
        "CPU": config["cpuCount"],
        "Memory": config["memorySize"] // 2**20,
        "Disk": vm.disk_bytes() // GIGABYTE,
        "DiskFormat": config["diskFormat"],
        "Size": f"{vm.allocated_bytes() / GIGABYTE:.3f}",
        "Display": f"{config['display']['width']}x{config['display']['height']}",
        "Running": state == "running",
        "State": state,
    }
    if options.format == "json":
        print(_json(shown))
    else:
        print("\t".join(shown))
        print("\t".join(str(value) for value in shown.values()))


def _json(value: Any) -> str:
    """As Swift prints it: two spaces, and one on both sides of the colon."""
    if value == []:
        return "[\n\n]"
    return json.dumps(_shuffled(value), indent=2, separators=(",", " : "))


def _shuffled(value: Any) -> Any:
    if isinstance(value, Mapping):
        keys = list(value)
        random.shuffle(keys)
        return {key: value[key] for key in keys}
    return [_shuffled(item) for item in value]
