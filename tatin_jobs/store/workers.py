"""What workers tell about themselves."""

from __future__ import annotations

from typing import cast

from pydantic import ValidationError

from tatin_jobs.errors import WrongState
from tatin_jobs.models import WorkerInfo
from tatin_jobs.store.base import Base, text
from tatin_jobs.store.records import from_ms, to_ms
from tatin_jobs.store.scripts import store_errors

NAME_FREE_SECONDS = 60
"""The name of a worker that announced itself longer ago may be another's."""
MISSED = 3
"""A worker that left out so many announcements is shown as silent. For people only: no job is taken back for it."""
LEAST_SILENCE_SECONDS = 15
"""A busy host may be late."""


class Workers(Base):
    """Announced workers, and which of them are drained."""

    def enroll(self, worker: str, home_id: str) -> None:
        """Take this name for the worker of this home. A name whose worker has been silent for a minute is free.

        Raises:
            WrongState: a worker of another home has it.
        """
        answer = self._scripts.call("enroll", worker, home_id, NAME_FREE_SECONDS * 1000)
        if text(answer[0]) == "refused":
            raise WrongState(
                f"Another worker is called '{worker}'.",
                seen=_where(text(answer[1])),
                try_="give this one a name of its own: tatin worker --name NAME, or TATIN_WORKER_NAME.",
            )

    def announce(self, info: WorkerInfo) -> None:
        """Tell about a worker, as of now."""
        now = self._now_ms()
        with store_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(self._key("workers"), info.name, info.model_dump_json(exclude={"seen_at"}))
            pipe.hset(self._key("seen"), info.name, str(now))
            pipe.execute()

    def retire(self, worker: str, home_id: str = "") -> None:
        """Forget a worker that ended in order, and that it was drained. One whose name another home has is left."""
        with store_errors():
            if text(self._client.hget(self._key("owners"), worker)) not in ("", home_id):
                return
            self._client.hdel(self._key("owners"), worker)
            self._client.hdel(self._key("workers"), worker)
            self._client.hdel(self._key("seen"), worker)
            self._client.srem(self._key("draining"), worker)

    def workers(self) -> list[WorkerInfo]:
        """Every worker that is known, with when it was last seen by the store's clock."""
        with store_errors():
            rows = cast("dict[bytes, bytes]", self._client.hgetall(self._key("workers")))
            seen = cast("dict[bytes, bytes]", self._client.hgetall(self._key("seen")))
            draining = cast("set[bytes]", self._client.smembers(self._key("draining")))
        found = []
        for name, row in sorted(rows.items()):
            try:
                info = WorkerInfo.model_validate_json(row)
            except ValidationError:
                continue  # a newer worker's; its own Tatin shows it
            at = from_ms(text(seen.get(name, b"")))
            found.append(info.model_copy(update={"seen_at": at, "draining": info.draining or name in draining}))
        return found

    def is_silent(self, info: WorkerInfo) -> bool:
        """Whether a worker has not announced itself when it should have, by the store's clock."""
        limit = max(LEAST_SILENCE_SECONDS, MISSED * info.every_seconds)
        return info.seen_at is None or self._now_ms() - to_ms(info.seen_at) > limit * 1000

    def drain(self, worker: str, on: bool) -> None:
        """Tell a worker to claim nothing more, or to claim again."""
        with store_errors():
            if on:
                self._client.sadd(self._key("draining"), worker)
            else:
                self._client.srem(self._key("draining"), worker)


def _where(row: str) -> str:
    try:
        info = WorkerInfo.model_validate_json(row)
    except ValidationError:
        return "it announced itself less than a minute ago"
    return f"process {info.pid} on host '{info.host}'"
