"""Real virtual machines from the image that ``scripts/test`` builds. Booting one takes long under emulation, so a state
is frozen once for a machine that runs the tests, and one guest serves all tests that only want some guest: each adopts
it, as the next worker would, and what a test left in it is killed and removed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import DEFAULT_IMAGE
from tests.contract.conftest import HOME_ID, spec_of
from tests.support.parts import CI_IMAGE, tools_home
from tests.vms.guests import CiProvider, SharedGuests
from worker.sandboxes.base import Sandbox, SandboxProvider
from worker.sandboxes.qemu.provider import QemuProvider

FOLDER = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is ``longer`` is left out, and counted at the end, unless ``TATIN_TEST_LONGER`` is set."""
    left_out = []
    for item in [item for item in items if FOLDER in item.path.parents]:
        is_tart = FOLDER / "tart" in item.path.parents
        item.add_marker(pytest.mark.needs("tart-guests" if is_tart else "qemu-image"))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))
        if item.get_closest_marker("longer") and "TATIN_TEST_LONGER" not in os.environ:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def vm_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Home]]:
    """Two homes with the image and the frozen states of this machine's tests; one run at a time has them."""
    kept = tools_home() / "test-vms"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = []
    for name in ("one", "two"):
        home = Home(tmp_path_factory.mktemp("vms") / name)
        home.root.mkdir(mode=0o700)
        home.images.mkdir(mode=0o700)
        for image in (CI_IMAGE, DEFAULT_IMAGE):  # a worker wants the one that jobs get which name none
            (home.images / image).symlink_to(tools_home() / "images" / CI_IMAGE)
        home.machines.symlink_to(kept)
        home.prepare()
        (home.root / "id").write_text(HOME_ID)
        made.append(home)
    with (kept / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield made[0], made[1]
        for home in made:
            asyncio.run(_destroy_all(home))


async def _destroy_all(home: Home) -> None:
    provider = QemuProvider(home, HOME_ID)
    for name in await provider.list():
        await provider.destroy(name)


@pytest.fixture
def make_provider(request: pytest.FixtureRequest, vm_homes: tuple[Home, Home]) -> Callable[[], SandboxProvider]:
    """On the shared guest's home where the test has that guest, else on one where nothing is."""
    home = vm_homes[0 if "sandbox" in request.fixturenames else 1]
    return lambda: CiProvider(home, HOME_ID)


@pytest.fixture
def provider(make_provider: Callable[[], SandboxProvider]) -> SandboxProvider:
    return make_provider()


@pytest.fixture
async def sandbox(vm_homes: tuple[Home, Home]) -> AsyncIterator[Sandbox]:
    guests = SharedGuests(vm_homes[0])
    made = await guests.create(spec_of(1))
    yield made
    await guests.destroy(made.name)


@pytest.fixture
def provider_of(vm_homes: tuple[Home, Home]) -> Callable[[Home], SandboxProvider]:
    """For the attacks (tests/attacks), whatever home they have: a guest that all share is as good as one of its own."""
    return lambda home: SharedGuests(vm_homes[0])
