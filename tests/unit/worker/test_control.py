"""The stop signal of one attempt."""

from __future__ import annotations

import asyncio

import pytest

from worker.control import Control, Interrupted, Stop


async def test_a_stronger_stop_replaces_a_weaker_one_and_not_the_other_way() -> None:
    control = Control()
    for stop in (Stop.SHUTDOWN, Stop.CANCELLED, Stop.SHUTDOWN):
        control.interrupt(stop)
    assert control.interruption is not None
    assert control.interruption.stop is Stop.CANCELLED
    assert not control.lost
    control.interrupt(Stop.LOST)
    assert control.lost


async def test_what_ends_of_itself_is_passed_on() -> None:
    async def work(error: Exception | None) -> int:
        await asyncio.sleep(0)
        if error:
            raise error
        return 7

    assert await Control().run(work(None)) == 7
    with pytest.raises(ValueError, match="wrong"):
        await Control().run(work(ValueError("wrong")))


@pytest.mark.parametrize("last", ["is cancelled", "returns", "raises"])
async def test_it_is_given_up_once_and_waited_for(last: str) -> None:
    """However it ends then: what it says is no longer what happened. Another stop does not disturb its end."""
    control, ended = Control(), []

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append(last)
            if last == "returns":
                return last  # noqa: B012 - as a careless step may
            if last == "raises":
                raise ValueError(last)
        return ""

    running = asyncio.create_task(control.run(work()))
    await asyncio.sleep(0.01)
    control.interrupt(Stop.SHUTDOWN)
    await asyncio.sleep(0.01)
    control.interrupt(Stop.DIED, "gone")
    with pytest.raises(Interrupted):
        await running
    assert ended == [last]


async def test_one_that_was_asked_before_does_not_begin() -> None:
    control, begun = Control(), []

    async def work() -> None:
        begun.append(1)

    control.interrupt(Stop.SHUTDOWN)
    with pytest.raises(Interrupted):
        await control.run(work())
    assert begun == []


async def test_it_ends_with_its_caller() -> None:
    control, ended = Control(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    running = asyncio.create_task(control.run(work()))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(ended.wait(), 5)
