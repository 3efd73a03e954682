"""``clone``, ``create``, ``set``, ``rename``, ``delete``: a VM's folder, made, changed and removed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure, UsageFailure, no_such_vm, not_running
from tests.standins.tart.images import auto_prune, find_image, is_remote, pull_image
from tests.standins.tart.storage import GIGABYTE, SUSPENDED, VM, Home, call, copy_file, new_config, new_mac


def clone(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    """Onto a name that exists it replaces what is there, running or not, without a word."""
    if "/" in options.new_name:
        raise UsageFailure("<new-name> should be a local name", "clone")
    if is_remote(options.source_name):
        source = find_image(home, options.source_name) or pull_image(home, dials, options.source_name)
    else:
        source = home.vm(options.source_name)
    target = home.vms / options.new_name
    if target.exists() and dials.get("refuse_existing"):
        raise TartFailure(f'VM "{options.new_name}" already exists, use --overwrite to replace it')
    with home.draft() as draft, home.locked():
        time.sleep(dials.seconds("clone_hangs"))
        if text := dials.get("clone_fails"):
            shutil.copy(source.path / "config.json", draft)
            raise TartFailure(str(text))
        _copy(source, draft)
        config = json.loads((draft / "config.json").read_text())
        if source.state() != "suspended" and any(
            vm.config["macAddress"] == config["macAddress"] for vm in home.local()
        ):
            config["macAddress"] = new_mac()
            (draft / "config.json").write_text(json.dumps(config))
        replaced = home.tmp / f"{draft.name}-REPLACED"
        if target.exists():
            target.rename(replaced)
        draft.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    auto_prune(home, dials, source, options.prune_limit)


def _copy(source: VM, target: Path) -> None:
    """Fast whatever the disk's size: a qcow2 gets an overlay, everything else is copied sparsely."""
    for file in ("config.json", "nvram.bin", SUSPENDED):
        if (source.path / file).exists():
            shutil.copy(source.path / file, target / file)
    disk = str(target / "disk.img")
    if source.is_qcow2() and not _has_backing(source.disk):
        backing = str(source.disk.resolve())
        call("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, disk)
    else:
        copy_file(source.disk, target / "disk.img")


def _has_backing(disk: Path) -> bool:
    with disk.open("rb") as file:
        return any(file.read(16)[8:16])


def create(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    with home.draft() as draft, home.locked():
        (draft / "config.json").write_text(json.dumps(new_config()))
        (draft / "nvram.bin").write_bytes(b"")
        with (draft / "disk.img").open("wb") as disk:
            disk.truncate(options.disk_size * GIGABYTE)
        draft.rename(home.vms / options.name)


def set_vm(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    """The configuration is saved before the disk is resized, so a wrong size leaves the rest changed."""
    vm = home.vm(options.name)
    config = vm.config
    if options.cpu is not None:
        _at_least(options.cpu, config["cpuCountMin"], "CPU cores")
        config["cpuCount"] = options.cpu
    if options.memory is not None:
        _at_least(options.memory * 2**20, config["memorySizeMin"], "bytes of memory")
        config["memorySize"] = options.memory * 2**20
    if options.random_mac:
        config["macAddress"] = new_mac()
    if options.display is not None:
        width, _, height = options.display.rstrip("ptx").partition("x")
        config["display"] = {"width": int(width), "height": int(height)}
    vm.write_config(config)
    if options.disk_size is not None:
        _grow(vm, options.disk_size)


def _at_least(value: int, least: int, what: str) -> None:
    if value < least:
        text = f"LessThanMinimalResourcesError: VM should have {least} {what} at minimum (requested {value})"
        raise TartFailure(f"Error: {text}")


def _grow(vm: VM, gigabytes: int) -> None:
    wanted, size = gigabytes * GIGABYTE, vm.disk_bytes()
    if wanted < size:
        has = -(-size // GIGABYTE)
        raise TartFailure(f"new disk size of {gigabytes} GB should be larger than the current disk size of {has} GB")
    if wanted > size and vm.is_qcow2():
        call("qemu-img", "resize", "-q", "-f", "qcow2", str(vm.disk), str(wanted))
    elif wanted > size:
        os.truncate(vm.disk, wanted)


def rename(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    source, target = home.vms / options.name, home.vms / options.new_name
    if "/" in options.new_name:
        raise UsageFailure("<new-name> should be a local name", "rename")
    if not (source / "config.json").exists():
        raise UsageFailure(f"failed to rename a non-existent local VM: {options.name}", "rename")
    if target.exists():
        text = f"failed to rename VM {options.name}, target VM {options.new_name} already exists, delete it first!"
        raise UsageFailure(text, "rename")
    source.rename(target)


def delete(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    """One after the other; the first error stops, and the rest stay."""
    for name in options.name:
        image = find_image(home, name) if is_remote(name) else None
        folder = image.path if image else home.vms / name
        if ("/" in name and not image) or not (folder / "config.json").exists():
            raise no_such_vm(name)
        if VM(folder).running_pid() is not None or not dials.used_up("delete_fails"):
            raise TartFailure(f'VM "{name}" is running')
        shutil.rmtree(folder)


def suspend(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    pid = home.vm(options.name).running_pid()
    if pid is None:
        raise not_running(not_running(options.name).text)  # wrapped twice, as it really is
    os.kill(pid, 10)  # SIGUSR1


def stop(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    """SIGINT, then SIGKILL at the time limit; then it does not wait."""
    vm = home.vm(options.name)
    pid = vm.running_pid()
    if pid is None:
        if vm.state() != "suspended":
            raise not_running(options.name)
        (vm.path / SUSPENDED).unlink()
        return
    deadline = time.monotonic() + options.timeout
    _signal(vm, pid, 2)
    while time.monotonic() < deadline:
        if vm.running_pid() is None:
            return
        time.sleep(0.1)
    _signal(vm, pid, 9)


def _signal(vm: VM, pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except OSError as error:
        raise TartFailure(f'failed to forcefully terminate the VM "{vm.name}": {error}') from error
