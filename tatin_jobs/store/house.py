"""Keeping house: what prune removes and what doctor checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from tatin_jobs.store.base import text
from tatin_jobs.store.questions import Questions
from tatin_jobs.store.scripts import store_errors

_PAGE = 200


class House(Questions):
    """Rare work over many records; each call to the server is short."""

    def forget(self, job_ids: Sequence[str]) -> int:
        """Remove the records of finished jobs; one that is not finished stays. How many went."""
        return sum(int(self._scripts.call("forget", *page)) for page in _pages(job_ids))

    def forget_empty_batches(self, batch_ids: Iterable[str]) -> int:
        """Remove batches of which no job's record is left; how many went."""
        gone = 0
        for batch in self._batches(batch_ids):
            if not self._rows(batch.jobs):
                with store_errors():
                    self._client.zrem(self._key("batches"), batch.id)
                    self._client.zrem(self._key("ids"), batch.id)
                    self._client.delete(self._key(f"batch:{batch.id}"))
                gone += 1
        return gone

    def misplaced(self) -> list[str]:
        """Ids of jobs that are in no place, in another one than their record says, or in two (I1)."""
        return self._repair("check")

    def repair(self) -> list[str]:
        """Put every misplaced job where its record says; their ids. What is finished stays finished."""
        return self._repair("repair")

    def _repair(self, mode: str) -> list[str]:
        return [
            text(found) for page in _pages(self._known_ids()) for found in self._scripts.call("repair", mode, *page)
        ]

    def _known_ids(self) -> list[str]:
        """Every recorded job, and what only a left-over of one is named after."""
        with store_errors():
            names = ["beats", *(f"leases:{text(name)}" for name in self._client.hkeys(self._key("workers")))]
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.hkeys(self._key(name))
            left = [text(found) for page in pipe.execute() for found in cast("list[bytes]", page)]
        return list(dict.fromkeys([*self._members("all"), *self._members("held"), *left]))


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _PAGE):
        yield ids[start : start + _PAGE]
