"""OCI images: ``pull``, the cache, and what is pruned from it."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.standins.tart.dials import Dials
from tests.standins.tart.failures import TartFailure, UsageFailure
from tests.standins.tart.storage import FILES, VM, Home, copy_file

_REMOTE = re.compile(
    r"(?P<host>[a-z0-9.-]+(?::\d+)?)/(?P<space>[a-z0-9._/-]+)(?::(?P<tag>[\w.-]+)|@(?P<digest>sha256:\w+))?"
)


def is_remote(name: str) -> bool:
    """Whether it parses as ``host/namespace[:tag|@sha256:...]``."""
    return _REMOTE.fullmatch(name) is not None


def _place(home: Home, name: str) -> Path:
    match = _REMOTE.fullmatch(name)
    assert match is not None  # the caller looked
    return home.images / match["host"] / match["space"] / (match["digest"] or match["tag"] or "latest")


def find_image(home: Home, name: str) -> VM | None:
    """The image in the cache; a tag that is there is not looked up again."""
    place = _place(home, name)
    return VM(place.resolve()) if place.exists() else None


def pull(home: Home, dials: Dials, options: argparse.Namespace) -> None:
    if not is_remote(options.remote_name):
        print(f'"{options.remote_name}" is a local image, nothing to pull here!')
        return
    pull_image(home, dials, options.remote_name)


def pull_image(home: Home, dials: Dials, name: str) -> VM:
    """Fetch it, slowly, one at a time from a registry's host."""
    place = _place(home, name)
    host = home.images / name.partition("/")[0]
    host.mkdir(parents=True, exist_ok=True)
    lock = os.open(host, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("waiting for lock...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        print(f"pulling {name}...", flush=True)
        print("pulling manifest...", flush=True)
        offered = dials.get("registry", {}).get(name, {"status": 404})
        if (status := offered.get("status", 200)) != 200:
            text = f'UnexpectedHTTPStatusCode(when: "pulling manifest", code: {status}, details: "unknown")'
            raise TartFailure(f"Error: {text}")
        print("pulling disk (0.1 GB compressed)...", flush=True)
        time.sleep(float(offered.get("seconds", 0)))
        print("100%\npulling NVRAM...", flush=True)
        return _store(place, Path(offered["from"]))
    finally:
        os.close(lock)


def _store(place: Path, source: Path) -> VM:
    digest = "sha256:" + hashlib.sha256((source / "config.json").read_bytes()).hexdigest()
    folder = place.parent / digest
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        copy_file(source / file, folder / file)
    (folder / "manifest.json").write_text(json.dumps({"schemaVersion": 2}))
    if place.name != digest:
        place.unlink(missing_ok=True)
        place.symlink_to(digest)
    return VM(folder)


def cached(home: Home) -> Iterator[tuple[str, VM]]:
    """Each image twice: by its tag and by its digest."""
    for place in sorted(home.images.glob("**/*")):
        if place.parent.name.startswith("sha256:") or not (place / "config.json").exists():
            continue
        space = place.parent.relative_to(home.images)
        mark = "@" if place.name.startswith("sha256:") else ":"
        yield f"{space}{mark}{place.name}", VM(place)


def _digests(home: Home) -> list[VM]:
    """The cached data, least recently used first."""
    found = [vm for name, vm in cached(home) if "@" in name]
    return sorted(found, key=lambda vm: vm.disk.stat().st_atime)


def _remove(vm: VM) -> None:
    for link in vm.path.parent.iterdir():
        if link.is_symlink() and link.resolve() == vm.path:
            link.unlink()
    shutil.rmtree(vm.path)


def auto_prune(home: Home, dials: Dials, source: VM, limit_gib: int) -> None:
    """Room for what a clone may grow by, from the cache only; nothing where even all of it would not do."""
    if "TART_NO_AUTO_PRUNE" in os.environ:
        return
    wanted = min(source.disk_bytes() - source.allocated_bytes(), limit_gib * 2**30)
    free = int(dials.get("free_bytes", shutil.disk_usage(home.path).free))
    others = [vm for vm in _digests(home) if vm.path != source.path]
    if free >= wanted or free + sum(vm.allocated_bytes() for vm in others) < wanted:
        return
    for vm in others:
        if free >= wanted:
            return
        free += vm.allocated_bytes()
        _remove(vm)


def prune(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    """``--entries vms`` deletes local VMs that do not run, the base image too."""
    if options.older_than is None and options.space_budget is None:
        raise UsageFailure("at least one pruning criteria must be specified", "prune")
    entries = _digests(home) if options.entries == "caches" else [vm for vm in home.local() if vm.running_pid() is None]
    left = sum(vm.allocated_bytes() for vm in entries)
    for vm in sorted(entries, key=lambda vm: vm.disk.stat().st_atime):
        is_old = options.older_than is not None and _days_unused(vm) >= options.older_than
        is_over = options.space_budget is not None and left > options.space_budget * 2**30
        if is_old or is_over:
            left -= vm.allocated_bytes()
            _remove(vm)


def _days_unused(vm: VM) -> float:
    return (time.time() - vm.disk.stat().st_atime) / 86_400


def fqn(home: Home, _dials: Dials, options: argparse.Namespace) -> None:
    image = find_image(home, options.name) if is_remote(options.name) else None
    if image is None:
        raise TartFailure(f'the specified VM "{options.name}" does not exist', 2)
    sys.stdout.write(f"{options.name.rpartition(':')[0]}@{image.path.name}\n")
