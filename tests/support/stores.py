"""Stores to test against, records to put into them, and a connection that loses replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import redis

from tatin_jobs import names
from tatin_jobs.embedded import embedded_server
from tatin_jobs.home import Home
from tatin_jobs.models import Batch, Job, JobSpec, Need, Offer, Repo
from tatin_jobs.states import JobState
from tatin_jobs.store import Store

OFFER = Offer(cpus=4, memory_mib=4096, disk_mib=10_000, slots=4, tags=("os:linux", "sandbox:fake"))
SMALL = Need(cpus=1, memory_mib=256, disk_mib=100)
LEASE_SECONDS = 60.0
CREATED = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)


class FakeStore(Store):
    """A store on fakeredis, which runs the same scripts but has no INFO: ``run`` stands for the server's run id."""

    run = "first"

    def run_id(self) -> str:
        return self.run


def fake_store() -> FakeStore:
    """An empty store in memory, prepared."""
    store = FakeStore(fakeredis.FakeRedis())
    store.prepare()
    return store


@contextmanager
def valkey_socket(folder: Path) -> Iterator[Path]:
    """A real server for as long as the context lasts."""
    home = Home(folder)
    home.prepare()
    with embedded_server(home) as path:
        yield path


def client_of(store: Store) -> Any:
    """The connection of a store, to plant and to look at what the store itself would not show."""
    return store._client


def make_job(job_id: str = "", *, priority: int = 0, **fields: Any) -> Job:
    """A queued job that needs little; every field can be set."""
    job_id = job_id or names.job_id("job")
    repo = Repo(url="https://example.invalid/app.git")
    values: dict[str, Any] = {
        "id": job_id,
        "batch": "b-batch",
        "spec": JobSpec(name="job", repo=repo, tool="command", command="true", priority=priority),
        "need": SMALL,
        "state": JobState.QUEUED,
        "created_at": CREATED,
    }
    return Job(**{**values, **fields})


def submit(store: Store, *jobs: Job, batch: str = "") -> Batch:
    """Submit these jobs as one batch with an id of its own."""
    made = Batch(id=batch or names.batch_id(), created_at=CREATED, jobs=tuple(job.id for job in jobs))
    store.submit(made, [job.model_copy(update={"batch": made.id}) for job in jobs])
    return made


@contextmanager
def losing_replies(store: Store, count: int) -> Iterator[None]:
    """The next ``count`` scripts run, and their replies are lost with the connection (F24)."""
    client, left = client_of(store), count
    real: Callable[..., Any] = client.evalsha

    def lossy(*args: Any) -> Any:
        nonlocal left
        answer = real(*args)
        if left > 0:
            left -= 1
            raise redis.ConnectionError("the connection was cut behind the command")
        return answer

    client.evalsha = lossy
    try:
        yield
    finally:
        del client.evalsha
    assert left == 0, "fewer scripts ran than replies were to be lost"


def dump(store: Store) -> dict[bytes, Any]:
    """Everything in the store, to see that a refused move changed nothing."""
    client = client_of(store)
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    return {key: readers[client.type(key)](key) for key in sorted(client.keys("*"))}
