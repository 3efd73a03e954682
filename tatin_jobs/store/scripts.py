"""The connection and the scripts: the one place where redis-py's errors become ours.

Every script is idempotent, so a call whose reply was lost is made again, with the same nonce or token (F24). redis-py
itself retries nothing: it does not know which commands may be repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tatin_jobs.errors import StoreUnavailable

TIMEOUT_SECONDS = 5.0
TRIES = 3
"""How often a call is made that meets a broken connection."""
TRIES_IN_SILENCE = 2
"""How often one is made that gets no answer: together they last twice the time limit of the connection."""
_ON_FULL_MEMORY = (
    *("claim", "beat", "step", "finish", "requeue", "reap", "cancel", "release_due", "forget", "repair"),
    *("overdue", "settle", "quota", "route"),
)
"""Scripts that must go on when maxmemory is reached: what runs must be able to end (F27). fakeredis refuses the line
that says so, hence only a real server is told."""
_ALLOW_OOM = "#!lua flags=allow-oom\n"
T = TypeVar("T")
_PASSWORD = re.compile(r"(?<=:)[^:@/]*(?=@)")


def connect(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> redis.Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; nothing is sent yet. Every call has a time limit."""
    return redis.Redis.from_url(
        url,
        decode_responses=False,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )


def shown_url(url: str) -> str:
    """The address without its password, for messages."""
    return _PASSWORD.sub("***", url)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn redis-py's errors into ``StoreUnavailable``; an error means "unknown", not "no"."""
    try:
        yield
    except redis.TimeoutError as error:
        raise StoreUnavailable("The store does not answer.", seen=str(error), try_="see `tatin doctor`.") from error
    except redis.ConnectionError as error:
        raise StoreUnavailable("The store cannot be reached.", seen=str(error), try_="see `tatin doctor`.") from error
    except redis.ResponseError as error:
        advice = "free memory on the Redis host." if "maxmemory" in str(error) else "see `tatin doctor`."
        raise StoreUnavailable("The store refused.", seen=str(error)[:300], try_=advice) from error
    except redis.RedisError as error:
        raise StoreUnavailable("The store failed.", seen=str(error)[:300]) from error


def repeated(question: Callable[[], T]) -> T:
    """The answer to a question that may be asked twice: asked again when its connection breaks, for one lost reply
    should neither end a command that starts nor keep a claim from its job (F24).

    Raises:
        StoreUnavailable: no try got an answer.
    """
    with store_errors():
        for _ in range(TRIES - 1):
            with suppress(redis.ConnectionError):
                return question()
        return question()


class Scripts:
    """Loads the scripts by need and calls them by digest; a server that forgot them is told again (F31)."""

    def __init__(self, client: redis.Redis, prefix: str, revive: Callable[[], None] | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self._revive = revive
        self._digests: dict[str, str] = {}
        self._flags: bool | None = None

    def call(self, name: str, *args: str | bytes | int | float) -> Any:
        """Run a script.

        Raises:
            StoreUnavailable: the server did not answer (it may have run all the same) or refused.
        """
        tried = 0
        with store_errors():
            while True:
                tried += 1
                try:
                    return self._call_once(name, args)
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    silent = isinstance(error, redis.TimeoutError)
                    if tried >= (TRIES_IN_SILENCE if silent else TRIES):
                        raise
                self._client.connection_pool.disconnect(inuse_connections=False)
                if self._revive and not silent and tried > 1:  # the first may be an idle connection that went away
                    self._revive()

    def _call_once(self, name: str, args: Sequence[Any]) -> Any:
        digest = self._digests.get(name) or self._load(name)
        try:
            return self._client.evalsha(digest, 1, self._prefix, *args)
        except redis.exceptions.NoScriptError:
            return self._client.evalsha(self._load(name), 1, self._prefix, *args)

    def _load(self, name: str) -> str:
        body = script_text(name)
        if name in _ON_FULL_MEMORY and self._knows_flags():
            body = _ALLOW_OOM + body
        self._digests[name] = _digest(self._client.script_load(body))
        return self._digests[name]

    def _knows_flags(self) -> bool:
        if self._flags is None:
            try:
                self._flags = bool(self._client.eval(_ALLOW_OOM + "return 1", 0))
            except redis.ResponseError:
                self._flags = False
        return self._flags


def script_text(name: str) -> str:
    """A script with what is common to all in front of it."""
    folder = resources.files("tatin_jobs.store")
    return folder.joinpath("common.lua").read_text() + folder.joinpath(f"{name}.lua").read_text()


def _digest(loaded: Any) -> str:
    return loaded.decode() if isinstance(loaded, bytes) else str(loaded)
