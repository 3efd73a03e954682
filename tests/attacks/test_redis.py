"""What someone who can write to Redis, or replay what was written, can do to a worker (A40, A41, A43, A44)."""

from __future__ import annotations

import ast
import os
import pickle
import stat
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import tatin_jobs
import worker
from tatin_jobs.embedded import socket_path
from tatin_jobs.errors import TatinError
from tatin_jobs.home import Home
from tatin_jobs.models import Lease
from tatin_jobs.queue import make_huey
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store, open_store
from tests.support.stores import LEASE_SECONDS, OFFER, client_of, fake_store, make_job, submit
from worker.tasks import register


class Planted:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A folder that exists once a planted pickle was loaded."""
    return tmp_path / "loaded"


@pytest.fixture
def payload(mark: Path) -> bytes:
    data = pickle.dumps(Planted(mark))
    pickle.loads(data)
    assert mark.is_dir(), "the payload works"
    mark.rmdir()
    return data


class Claims:
    """Gives the leases of a list."""

    def __init__(self, *leases: Lease) -> None:
        self.left = list(leases)

    def next(self) -> Lease | None:
        return self.left.pop() if self.left else None


def test_a40_a_pickled_message_is_never_loaded(payload: bytes, mark: Path) -> None:
    """A40: with Huey's own serializer it ran 4 times of 4."""
    huey = make_huey(Claims())
    for wrap in (payload, b'{"id": ' + payload, b'"' + payload.hex().encode() + b'"'):
        with pytest.raises((ValueError, TypeError)):
            huey.deserialize_task(wrap)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b"null",
        b'{"id": "x", "name": "os.system", "args": ["job-1"]}',
        b'{"id": "x", "name": "worker.tasks.run_attempt", "args": ["job-1", 5]}',
        b'{"id": "x", "name": "worker.tasks.run_attempt", "args": ["../../x", "s:1"]}',
        b'{"id": "x", "name": "worker.tasks.run_attempt", "args": ["job-1\\n", "s:1"]}',
        b'{"id": "x", "name": "worker.tasks.run_attempt", "args": ["job-1", "s:1", "more"]}',
    ],
)
def test_a40_a_message_of_another_shape_is_refused(data: bytes) -> None:
    """A40."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        make_huey(Claims()).deserialize_task(data)


def test_a40_a_message_can_name_no_other_function() -> None:
    """A40."""
    huey = make_huey(Claims())
    register(huey, lambda job, token: None, lambda lease: Future())
    with pytest.raises(Exception, match=r"os\.system"):
        huey.deserialize_task(b'{"id": "x", "name": "os.system", "args": ["job-1", "s:1"]}')


def test_a40_a_pickle_planted_in_any_record_is_never_loaded(payload: bytes, mark: Path) -> None:
    """A40: the store's readers and a worker's claim meet it in every field and key."""
    store = fake_store()
    client = client_of(store)
    submit(store, make_job("job-1"), batch="b-one")
    fields = list(client.hgetall("tatin:job:job-1"))
    for field in fields:
        client.flushall()
        store.prepare()
        submit(store, make_job("job-1"), batch="b-one")
        client.hset("tatin:job:job-1", field, payload)
        client.hset("tatin:batch:b-one", "body", payload)
        client.hset("tatin:workers", "w1", payload)
        client.rpush("tatin:events:job-1", payload)
        client.xadd("tatin:log:job-1", {"a": payload, "s": payload, "d": payload})
        for name in ("huey.redis.tatin", "huey.schedule.tatin", "huey.results.tatin"):
            client.delete(name)
            client.rpush(name, payload)
        for ask in (
            lambda: store.claim("w1", OFFER, [], "n1", LEASE_SECONDS),
            lambda: store.job("job-1"),
            lambda: store.list_jobs(),
            lambda: store.batch("b-one"),
            store.workers,
            lambda: store.events("job-1"),
            lambda: store.read_log("job-1"),
            store.repair,
        ):
            try:
                ask()
            except (TatinError, ValueError):
                continue
    assert not mark.exists()


def test_a41_a_replayed_message_runs_nothing_again() -> None:
    """A41: a signed one ran 3 times of 3; here a message is worth what its lease is, and that is over."""
    store, ran = fake_store(), []
    submit(store, make_job("job-1"))
    lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert lease is not None
    held = {lease.token: lease}
    huey = make_huey(Claims(lease))

    def hand_over(taken: Lease) -> Future[None]:
        ran.append(taken.token)
        store.finish(taken, Outcome.SUCCEEDED)
        del held[taken.token]
        done: Future[None] = Future()
        done.set_result(None)
        return done

    register(huey, lambda job, token: held.get(token), hand_over)
    message = huey.storage.dequeue()
    assert message is not None
    for _ in range(3):
        huey.execute(huey.deserialize_task(message))
    assert ran == [lease.token]
    assert store.job("job-1").attempt == 1
    assert store.claim("w1", OFFER, [], "n1", LEASE_SECONDS) is None
    assert store.claim("w2", OFFER, [], "n2", LEASE_SECONDS) is None


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Home, Store]]:
    home = Home(tmp_path / "home")
    with open_store(Settings(home=home.root, worker_name="w1"), home) as store:
        yield home, store


@pytest.mark.needs("valkey")
def test_a43_only_this_user_reaches_the_embedded_store(real: tuple[Home, Store]) -> None:
    """A43: whoever reaches the socket can run jobs as this user."""
    home, store = real
    path = socket_path(home)
    for name in (path, path.parent, home.root):
        assert stat.S_IMODE(name.stat().st_mode) & 0o077 == 0, name
        assert name.stat().st_uid == os.geteuid()
    (port,) = client_of(store).config_get("port").values()
    assert int(port) == 0


@pytest.mark.needs("valkey")
def test_a44_no_question_or_move_looks_for_keys_by_pattern(real: tuple[Home, Store]) -> None:
    """A44, F44: KEYS and SCAN take a pattern, and read everything."""
    _, store = real
    submit(store, *(make_job(f"job-{index}") for index in range(5)))
    lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
    assert lease is not None
    store.finish(lease, Outcome.SUCCEEDED)
    store.hold("job-1")
    store.resolve("job-1")
    store.list_jobs(states=list(JobState))
    store.list_jobs()
    store.counts()
    store.workers()
    store.repair()
    store.forget(["job-0"])
    store.release_due()
    used = {name.removeprefix("cmdstat_") for name in client_of(store).info("commandstats")}
    assert "hmget" in used, "the server counts what scripts call"
    assert used & {"keys", "scan", "hscan", "sscan", "zscan", "sort"} == set()


def test_a44_what_goes_into_a_record_is_bounded() -> None:
    """A44: an error text is the guest's words at times."""
    store = fake_store()
    submit(store, make_job("job-1"), make_job("job-2"))
    first, second = (store.claim("w1", OFFER, [], f"n{number}", LEASE_SECONDS) for number in (1, 2))
    assert first is not None
    assert second is not None
    store.finish(first, Outcome.FAILED, message="x" * 10**6)
    store.requeue(second, message="x" * 10**6, delay_seconds=0, counted=False)
    assert max(len(store.job(name).message) for name in ("job-1", "job-2")) == 2000


IN_THE_GUEST = ("worker/sandboxes/launcher.py",)
"""Run inside the sandbox, as its user, and reads there what the worker writes: literals of the job's own values.
Whoever could write these could run a command in the guest anyhow, which is what it is for."""


def _sources() -> list[Path]:
    roots = [Path(package.__file__).parent for package in (tatin_jobs, worker) if package.__file__]
    return [path for root in roots for path in sorted(root.rglob("*.py")) if not any(map(path.match, IN_THE_GUEST))]


FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"}
ALLOWED = {("packets.py", "marshal"): ("warden.py", "request_of")}
"""The one file that has it, and the one that reads with it: a warden, what the worker sends that had it forked."""


@pytest.mark.parametrize("path", _sources(), ids=lambda path: "/".join(path.parts[-2:]))
def test_a40_no_code_of_ours_loads_what_could_run(path: Path) -> None:
    """A40."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found = FORBIDDEN & {name.name.split(".")[0] for name in names}
                assert all((path.name, name) in ALLOWED for name in found)
            case ast.ImportFrom(module=str(module)):
                assert module.split(".")[0] not in FORBIDDEN
            case ast.Call(func=ast.Name(id=name)):
                assert name not in {"eval", "exec"}
            case ast.Attribute(attr=name) | ast.alias(name=name):
                assert all(name != what or path.name == where for where, what in ALLOWED.values())
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr=attr)):
                assert attr not in {"load", "unsafe_load", "full_load"}
