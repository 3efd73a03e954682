"""Every provider that this machine has, each for every test of the contract."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from worker.sandboxes.base import Sandbox, SandboxProvider, SandboxSpec
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.fake import FakeProvider

HOME_ID = secrets.token_hex(4)
"""Of this run alone: another on the same machine would find its virtual machines by their names."""


def spec_of(number: int, memory_mib: int = 768) -> SandboxSpec:
    """What to create: ``number`` tells sandboxes of one test apart."""
    return SandboxSpec(name=f"tatin-{HOME_ID}-contract-{number}", cpus=1, memory_mib=memory_mib, disk_mib=4000)


Make = Callable[[], SandboxProvider]


@pytest.fixture(params=["fake", pytest.param("bwrap", marks=pytest.mark.needs("bwrap"))])
def make_provider(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A provider on the one home of this test: each call gives what the next worker of that home would have."""
    home = Home(tmp_path / "home")
    home.prepare()
    if request.param == "bwrap":
        return lambda: BwrapProvider(home, HOME_ID)
    return lambda: FakeProvider(home.sandboxes, HOME_ID, survives_worker=True)


@pytest.fixture
def provider(make_provider: Make) -> SandboxProvider:
    return make_provider()


@pytest.fixture
async def sandbox(provider: SandboxProvider) -> AsyncIterator[Sandbox]:
    made = await provider.create(spec_of(1))
    yield made
    await provider.destroy(made.name)
