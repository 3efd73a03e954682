"""What the attacks are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tatin_jobs.home import Home
from worker.sandboxes.base import SandboxProvider
from worker.sandboxes.bwrap.provider import BwrapProvider

ProviderOf = Callable[[Home], SandboxProvider]


@pytest.fixture(params=[pytest.param(BwrapProvider, marks=pytest.mark.needs("bwrap"), id="bwrap")])
def provider_of(request: pytest.FixtureRequest) -> ProviderOf:
    """The sandboxes of a home. Those attacks whose answer may differ with a kernel of its own are imported and run on
    virtual machines by tests/vms/attacks, which has a fixture of this name."""
    kind: Any = request.param
    return lambda home: kind(home, home.id())
