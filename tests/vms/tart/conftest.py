"""Real guests on Tart: the stand-in's are QEMU's, gone on with from the frozen state that the tests of QEMU have too.
With ``TATIN_TEST_TART=tart``, on a Mac, they are clones of its image ``tatin``, among whatever else that Tart has."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tatin_jobs.models import DEFAULT_IMAGE
from tests.contract import test_sandboxes
from tests.contract.conftest import HOME_ID, spec_of
from tests.standins.tart.qemu_guest import install
from tests.support.parts import CI_IMAGE
from tests.support.tart import Tart
from tests.vms.guests import SHARED, make_and_die, tidy
from worker.sandboxes.base import SandboxProvider, SandboxSpec
from worker.sandboxes.tart.cli import tart_home
from worker.sandboxes.tart.provider import TartProvider
from worker.sandboxes.tart.sandbox import TartSandbox

ALWAYS = (
    "both_streams",
    "over_its_time",
    "followed_live",
    "watcher_was_killed",
    "served_port",
    "nothing_else_of_the_host",
    "kill_all",
    "destroy_ends",
    "only_names",
    "survives_its_worker",
    "not_there",
)
"""Of the contract. The rest is the same code as on QEMU (``worker/sandboxes/remote.py``), and asked there each time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    asked = [name for name in dir(test_sandboxes) if name.startswith("test_")]
    gone = [word for word in ALWAYS if not any(word in name for name in asked)]
    assert not gone, f"no test of the contract is called so any more: {gone}"
    for item in items:
        if item.path == Path(__file__).parent / "test_contract.py" and not any(word in item.name for word in ALWAYS):
            item.add_marker(pytest.mark.longer)


SHARED_ID = secrets.token_hex(4)
"""Of the home with the guest that tests share: Tart lists its machines all together."""
SIZE = spec_of(1)


@dataclass(frozen=True)
class Homes:
    """``shared``: with the guest that tests share; ``other``: with nothing between tests."""

    shared: Home
    other: Home


@pytest.fixture(scope="session")
def whole_tart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tart]:
    """A Tart whose image ``tatin`` is a real one."""
    made = Tart(tart_home() if "TATIN_TEST_TART" in os.environ else tmp_path_factory.mktemp("tart") / "home")
    if made.is_stand_in:
        qemu_home: Home = request.getfixturevalue("vm_homes")[0]
        made.good("list")  # makes its folders
        image = made.home / "vms" / DEFAULT_IMAGE
        install(qemu_home, CI_IMAGE, image, cpus=SIZE.cpus, memory_mib=SIZE.memory_mib)
    yield made
    made.close()


@pytest.fixture(scope="session")
def homes(whole_tart: Tart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    """Tatin's homes, which know nothing of Tart's or of the keys in a frozen state."""
    root = tmp_path_factory.mktemp("homes")
    made = Homes(Home(root / "shared"), Home(root / "other"))
    for home, home_id in ((made.shared, SHARED_ID), (made.other, HOME_ID)):
        home.prepare()
        (home.root / "id").write_text(home_id)
    yield made
    with pytest.MonkeyPatch.context() as patch:
        _use(whole_tart, patch)
        for home in (made.shared, made.other):
            asyncio.run(_destroy_all(home))


async def _destroy_all(home: Home) -> None:
    provider = TartProvider(home, home.id())
    for name in await provider.list():
        await provider.destroy(name)


def _use(tart: Tart, patch: pytest.MonkeyPatch) -> None:
    for name, value in tart.for_a_worker.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def tart(whole_tart: Tart, monkeypatch: pytest.MonkeyPatch) -> Tart:
    """The Tart that the worker finds."""
    _use(whole_tart, monkeypatch)
    return whole_tart


@pytest.fixture
def make_provider(request: pytest.FixtureRequest, homes: Homes) -> Callable[[], SandboxProvider]:
    """On the shared guest's home where the test has that guest, else on one where nothing is."""
    home = homes.shared if "sandbox" in request.fixturenames else homes.other
    return lambda: TartProvider(home, home.id())


@pytest.fixture
def provider(make_provider: Callable[[], SandboxProvider]) -> SandboxProvider:
    return make_provider()


def spec(number: int, home_id: str = HOME_ID) -> SandboxSpec:
    return replace(spec_of(number), name=f"tatin-{home_id}-contract-{number}")


@pytest.fixture
async def sandbox(provider: SandboxProvider, homes: Homes) -> AsyncIterator[TartSandbox]:
    name = spec(SHARED, SHARED_ID).name
    try:
        made = await provider.adopt(name)
    except SandboxError:
        await provider.destroy(name)
        await make_and_die(homes.shared, name, TartProvider)
        made = await provider.adopt(name)
    assert isinstance(made, TartSandbox)
    yield made
    await tidy(made)
