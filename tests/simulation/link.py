"""A connection to the store that can be cut, and that loses requests and replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fakeredis
import redis

from tatin_jobs.states import JobState
from tatin_jobs.store import Store
from tatin_jobs.store.scripts import store_errors


class Link:
    """``cut``: nothing goes through. ``lost``: of each of the next scripts, whether it runs before its reply is lost
    (True) or is lost itself (False)."""

    def __init__(self) -> None:
        self.cut = False
        self.lost: list[bool] = []

    def carry(self, call: Callable[[], Any], *, script: bool) -> Any:
        if self.cut:
            raise redis.ConnectionError("the link is cut")
        if script and self.lost:
            if self.lost.pop(0):
                call()
            raise redis.ConnectionError("the connection was cut")
        return call()


class LinkedRedis(fakeredis.FakeRedis):  # type: ignore[misc]
    """A client whose every command goes over a link."""

    link: Link

    def execute_command(self, *args: Any, **options: Any) -> Any:
        call = super().execute_command
        return self.link.carry(lambda: call(*args, **options), script=args[0] == "EVALSHA")

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe: Any = super().pipeline(*args, **options)
        execute = pipe.execute
        pipe.execute = lambda *more, **given: self.link.carry(lambda: execute(*more, **given), script=False)
        return pipe


class SimStore(Store):
    """The real store over a link; fakeredis has no INFO, so the world tells the run id. ``before_reap`` is asked before
    each reap and told whether it was done."""

    run_of: Callable[[], str]
    before_reap: Callable[[str, str], Callable[[bool], None]] | None = None

    def run_id(self) -> str:
        client: Any = self._client
        with store_errors():
            return str(client.link.carry(self.run_of, script=False))

    def sibling(self, timeout_seconds: float | None = None) -> SimStore:
        return self

    def reap(self, job_id: str, seen: str, max_deaths: int) -> JobState | None:
        told = self.before_reap(job_id, seen) if self.before_reap else None
        state = super().reap(job_id, seen, max_deaths)
        if told:
            told(state is not None)
        return state


def connect(server: fakeredis.FakeServer, link: Link, run_of: Callable[[], str]) -> SimStore:
    """A store over ``link``."""
    client = LinkedRedis(server=server)
    client.link = link
    store = SimStore(client)
    store.run_of = run_of
    return store
