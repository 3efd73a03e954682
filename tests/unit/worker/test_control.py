"""The stop signal of one attempt."""

from __future__ import annotations

import asyncio

from worker.control import Control, Stop


async def test_a_stronger_stop_replaces_a_weaker_one_and_not_the_other_way() -> None:
    control = Control()
    control.interrupt(Stop.SHUTDOWN)
    control.interrupt(Stop.CANCELLED)
    control.interrupt(Stop.SHUTDOWN)
    assert (await control.wait()).stop is Stop.CANCELLED
    assert not control.lost
    control.interrupt(Stop.LOST)
    assert control.lost


async def test_wait_returns_when_somebody_asks() -> None:
    control = Control()
    waiting = asyncio.create_task(control.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    control.interrupt(Stop.DIED, "gone")
    assert (await waiting).detail == "gone"
