"""What is noted for the next worker while an agent runs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tatin_jobs.results import NetworkFacts
from worker.attempt import going_on
from worker.attempt.parts import Parts

FACTS = NetworkFacts(mode="none")


@pytest.mark.parametrize("error", [OSError("no room"), ValueError("no such fact")])
async def test_a_fault_does_not_end_the_noting(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(going_on, "NETWORK_SECONDS", 0.001)
    faults = iter([error])
    noted: asyncio.Future[NetworkFacts] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def tree(value: Any) -> Any:
        if (fault := next(faults, None)) is not None:
            raise fault
        return value

    context = SimpleNamespace(
        redactor=SimpleNamespace(tree=tree),
        journal=SimpleNamespace(note_network=lambda _, facts: loop.call_soon_threadsafe(noted.set_result, facts)),
    )
    network = SimpleNamespace(facts=lambda _: FACTS)
    noting = asyncio.create_task(
        going_on._note_network(cast(Parts, SimpleNamespace(context=context, network=network, name="tatin-1")))
    )
    try:
        async with asyncio.timeout(20):
            assert await noted == FACTS
    finally:
        noting.cancel()
