"""The Huey instance: its consumer's threads are the worker's slots, and its dequeue is our claim.

Plain Huey pops a message and loses it with its consumer (53-60 of 500 in a trial). Here nothing is popped: a dequeue
claims a job under a lease in one script, and the message it gives Huey only names the job and the token. Jobs enter
through ``Store.submit`` alone, a whole batch in one script (docs/decisions/0001-huey-is-the-front.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from huey.api import Huey
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import BaseStorage

from tatin_jobs.models import Lease
from tatin_jobs.names import ID

RUN_ATTEMPT = "run_attempt"
"""The one task: arguments are a job id and a token."""
TASK_MODULE = "worker.tasks"
"""Where the task lives; Huey names a task by its module."""


class Claims(Protocol):
    """Where claimed jobs come from (``worker.leases.Claimer``)."""

    def next(self) -> Lease | None:
        """Wait a while for a job that fits; None when there was none."""


class JsonSerializer(Serializer):  # type: ignore[misc]
    """Messages as JSON. Huey's own serializer is pickle: whoever writes to Redis would run code on every worker."""

    def _serialize(self, data: Any) -> bytes:
        if not isinstance(data, Message):
            raise TypeError("only messages are put into the queue")
        return json.dumps({"id": data.id, "name": data.name, "args": list(data.args)}).encode()

    def _deserialize(self, data: bytes) -> Message:
        fields = json.loads(data)
        job_id, token = fields["args"]
        if not isinstance(token, str) or not isinstance(job_id, str) or not ID.fullmatch(job_id):
            raise ValueError("not a message of ours")
        return Message(id=str(fields["id"]), name=str(fields["name"]), args=(job_id, token), kwargs={}, retries=0)


class TatinStorage(BaseStorage):  # type: ignore[misc]
    """Huey's storage over the claim. Only what a consumer needs is here; the rest would be a second way."""

    blocking = True

    def __init__(self, name: str = "tatin", *, claims: Claims, task_name: str) -> None:
        super().__init__(name)
        self._claims = claims
        self._task_name = task_name

    def dequeue(self) -> bytes | None:
        """A message for the next claimed job; None after a while without one."""
        lease = self._claims.next()
        if lease is None:
            return None
        message = {"id": lease.token, "name": self._task_name, "args": [lease.job.id, lease.token]}
        return json.dumps(message).encode()

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        raise NotImplementedError("jobs enter through Store.submit: a batch is recorded and queued in one script")

    def queue_size(self) -> int:
        return 0

    def enqueued_items(self, limit: int | None = None) -> list[bytes]:
        return []

    def flush_queue(self) -> None: ...

    def put_data(self, key: str, value: bytes, is_result: bool = False, ttl: int | None = None) -> None:
        raise NotImplementedError("results are files and records, not Huey's")

    def peek_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Huey asks whether a task was revoked; a cancel of ours goes through the store."""
        return {}

    def delete_data(self, key: str) -> int:
        """Huey clears the revocation that there never is."""
        return 0

    def close(self) -> None: ...


class TatinHuey(Huey):  # type: ignore[misc]
    """A Huey without results, schedules or periodic tasks."""

    def get_storage_class(self) -> type[TatinStorage]:
        return TatinStorage


def make_huey(claims: Claims) -> TatinHuey:
    """The Huey of one worker, whose dequeue claims through ``claims``."""
    return TatinHuey(
        "tatin",
        results=False,
        store_none=False,
        serializer=JsonSerializer(),
        storage_class=TatinStorage,
        claims=claims,
        task_name=f"{TASK_MODULE}.{RUN_ATTEMPT}",
    )
