"""One piece of work for all who ask for it at the same time."""

from __future__ import annotations

import asyncio

import pytest

from worker.repository.flight import SingleFlight


class Work:
    """Counts how often it was begun and given up; ends when told."""

    def __init__(self) -> None:
        self.begun = self.given_up = 0
        self.end = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            await asyncio.sleep(0)  # some work takes a while to stop
            raise
        if self.begun > 90:
            raise ValueError("too often")
        return self.begun


async def test_many_share_one_result_and_nothing_is_remembered() -> None:
    work, flights = Work(), SingleFlight[str, int]()
    asking = [asyncio.create_task(flights.do("a", work)) for _ in range(5)]
    await asyncio.sleep(0)
    work.end.set()
    assert await asyncio.gather(*asking) == [1] * 5
    assert await flights.do("a", work) == 2


async def test_an_error_is_everybodys() -> None:
    work, flights = Work(), SingleFlight[str, int]()
    work.begun = 90
    work.end.set()
    found = await asyncio.gather(*(flights.do("a", work) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in found] == ["too often"] * 3
    with pytest.raises(ValueError, match="too often"):
        await flights.do("a", work)


async def test_work_goes_on_while_anybody_waits_and_ends_with_the_last() -> None:
    work, flights = Work(), SingleFlight[str, int]()
    first, second = (asyncio.create_task(flights.do("a", work)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert work.given_up == 0
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert work.given_up == 1


async def test_one_who_asks_while_old_work_is_given_up_gets_work_that_others_share() -> None:
    work, flights = Work(), SingleFlight[str, int]()
    first = asyncio.create_task(flights.do("a", work))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0)
    later = [asyncio.create_task(flights.do("a", work))]
    await asyncio.gather(first, return_exceptions=True)
    later.append(asyncio.create_task(flights.do("a", work)))
    await asyncio.sleep(0.01)
    work.end.set()
    assert await asyncio.gather(*later) == [2, 2]
