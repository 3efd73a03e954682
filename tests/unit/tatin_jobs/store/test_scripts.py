"""redis-py's errors become ours in one place, and how often a call is made again."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest
import redis

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.store.scripts import TRIES, TRIES_IN_SILENCE, Scripts, connect, shown_url, store_errors


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (redis.TimeoutError("slow"), "does not answer"),
        (redis.ConnectionError("refused"), "cannot be reached"),
        (redis.BusyLoadingError("loading"), "cannot be reached"),
        (redis.AuthenticationError("wrong"), "cannot be reached"),
        (redis.ResponseError("WRONGTYPE"), "refused"),
        (redis.ReadOnlyError("replica"), "refused"),
        (redis.DataError("bad"), "failed"),
    ],
)
def test_every_error_of_redis_is_ours(error: redis.RedisError, what: str) -> None:
    with pytest.raises(StoreUnavailable, match=what) as caught, store_errors():
        raise error
    assert caught.value.__cause__ is error


def test_full_memory_has_its_own_advice() -> None:
    """F27."""
    error = redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'.")
    with pytest.raises(StoreUnavailable, match="free memory"), store_errors():
        raise error


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pass%40word@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:secret@host/0", "rediss://:***@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///a/b.sock", "unix:///a/b.sock"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_every_call_has_a_time_limit_and_redis_itself_repeats_nothing() -> None:
    options = connect("redis://localhost:1/0").connection_pool.connection_kwargs
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 5
    assert options["retry"].get_retries() == 0


class Broken:
    """Scripts over a client whose every call raises ``error`` until ``works`` calls were made."""

    def __init__(self, error: Exception, works_after: int = 10**9) -> None:
        self.calls = self.revived = 0
        self.client = fakeredis.FakeRedis()
        self.scripts = Scripts(self.client, "tatin:", self.revive)
        self._error, self._works_after = error, works_after
        self.client.evalsha = self.evalsha

    def evalsha(self, *args: Any) -> Any:
        self.calls += 1
        if self.calls <= self._works_after:
            raise self._error
        return b"answer"

    def revive(self) -> None:
        self.revived += 1


def test_a_broken_connection_is_tried_again_and_the_server_revived() -> None:
    broken = Broken(redis.ConnectionError("refused"))
    with pytest.raises(StoreUnavailable):
        broken.scripts.call("release_due", 1)
    assert broken.calls == TRIES
    assert broken.revived == TRIES - 2, "not for the first error: an idle connection may be gone and the server well"


def test_a_silent_server_is_not_waited_for_as_often_and_never_replaced() -> None:
    """F22."""
    broken = Broken(redis.TimeoutError("slow"))
    with pytest.raises(StoreUnavailable):
        broken.scripts.call("release_due", 1)
    assert broken.calls == TRIES_IN_SILENCE
    assert broken.revived == 0


def test_the_answer_of_a_later_try_counts() -> None:
    broken = Broken(redis.ConnectionError("cut"), works_after=TRIES - 1)
    assert broken.scripts.call("release_due", 1) == b"answer"


def test_what_the_server_refuses_is_not_tried_again() -> None:
    broken = Broken(redis.ResponseError("no"))
    with pytest.raises(StoreUnavailable):
        broken.scripts.call("release_due", 1)
    assert broken.calls == 1
