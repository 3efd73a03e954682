"""Whole attempts (tests/support/attempts.py) in virtual machines: each in a copy of its own of the tests' image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tatin_jobs.home import Home
from tatin_jobs.models import Need
from tests.contract.conftest import spec_of
from tests.support.attempts import Bench, bench
from tests.vms.guests import CiProvider

_SIZE = spec_of(1)
NEED = Need(cpus=_SIZE.cpus, memory_mib=_SIZE.memory_mib, disk_mib=_SIZE.disk_mib)
"""Of the machines whose state the tests have frozen already."""


@contextmanager
def vm_bench(tmp_path: Path, machines: Home, need: Need = NEED, **settings: Any) -> Iterator[Bench]:
    """A bench on a home of its own with the images and the frozen states of ``machines``."""

    def provider(home: Home) -> CiProvider:
        for own, shared in ((home.images, machines.images), (home.machines, machines.machines)):
            own.rmdir()
            own.symlink_to(shared)
        return CiProvider(home, home.id())

    with bench(tmp_path, provider, **settings) as made:
        made.need = need
        yield made
