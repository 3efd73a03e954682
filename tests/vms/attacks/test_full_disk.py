"""The disk of a machine is what its job asked for, and nothing watches it from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tests.attacks.test_resources import test_a61_a_guest_that_fills_its_disk_loses_nothing_but_its_room  # noqa: F401
from tests.support.attempts import Bench
from tests.support.parts import CI_IMAGE
from tests.vms.benches import NEED, vm_bench
from worker.images.store import find_image

pytestmark = [pytest.mark.needs("git", "valkey"), pytest.mark.longer]


@pytest.fixture
def made(tmp_path: Path, vm_homes: tuple[Home, Home]) -> Iterator[Bench]:
    size = find_image(vm_homes[1], CI_IMAGE).note.disk_mib + 100
    with vm_bench(tmp_path, vm_homes[1], NEED.model_copy(update={"disk_mib": size})) as bench:
        yield bench
