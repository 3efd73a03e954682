"""Every test here runs on fakeredis and on a real Valkey: the scripts are the same, the Lua that runs them is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tatin_jobs.store import Store
from tests.support.stores import fake_store, valkey_socket


@pytest.fixture(scope="session")
def real_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with valkey_socket(tmp_path_factory.mktemp("valkey")) as path:
        yield path


@pytest.fixture(params=["fakeredis", pytest.param("valkey", marks=pytest.mark.needs("valkey"))])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store."""
    if request.param == "fakeredis":
        yield fake_store()
        return
    path: Path = request.getfixturevalue("real_socket")
    client = redis.Redis(unix_socket_path=str(path), decode_responses=False, socket_timeout=5)
    client.flushall()
    real = Store(client)
    real.prepare()
    yield real
    real.close()
