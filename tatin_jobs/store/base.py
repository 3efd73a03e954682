"""What every part of the store shares: its connection, its scripts, its keys and its id."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import redis

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.store.keys import SCHEMA
from tatin_jobs.store.scripts import Scripts, repeated, store_errors


class Base:
    """A store that can be reached. ``revive`` is called when its server refuses connections, before the call is made
    again: whoever runs the embedded server starts it anew."""

    def __init__(self, client: redis.Redis, prefix: str = "tatin:", revive: Callable[[], None] | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self._revive = revive
        self._scripts = Scripts(client, prefix, revive)

    def sibling(self, timeout_seconds: float | None = None) -> Self:
        """The same store over connections of its own, so that nobody else's call delays it (I10)."""
        options = dict(self._client.connection_pool.connection_kwargs)
        if timeout_seconds is not None:
            options |= {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        pool = redis.ConnectionPool(connection_class=self._client.connection_pool.connection_class, **options)
        return type(self)(redis.Redis(connection_pool=pool), self._prefix, self._revive)

    def close(self) -> None:
        """Close its connections; the next call opens new ones."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def prepare(self) -> None:
        """Reach the store and check that its keys are of a schema that this Tatin knows; draws its id on first use.

        Raises:
            StoreUnavailable: it does not answer, or another version of Tatin wrote it.
        """
        schema = repeated(self._drawn_schema)
        if schema != str(SCHEMA):
            raise StoreUnavailable(
                f"The store was written by another version of Tatin (schema {schema[:10]!r}; this one knows {SCHEMA}).",
                try_="use the Tatin that wrote it, on every host.",
            )

    def _drawn_schema(self) -> str:
        """The schema of the store, written on first use."""
        meta = self._key("meta")
        self._client.hsetnx(meta, "store_id", secrets.token_hex(6))
        self._client.hsetnx(meta, "schema", str(SCHEMA))
        return text(self._client.hget(meta, "schema"))

    def store_id(self) -> str:
        """Drawn once; part of every token, since an emptied store counts from 1 again (I2)."""
        for _ in range(2):
            with store_errors():
                found = text(self._client.hget(self._key("meta"), "store_id"))
            if found:
                return found
            self.prepare()
        raise StoreUnavailable("The store does not keep what is written to it.", try_="see `tatin doctor`.")

    def run_id(self) -> str:
        """The server's own id of this run of it: another one means that it was restarted (I9)."""
        with store_errors():
            return str(self._client.info("server").get("run_id", ""))

    def server_settings(self) -> dict[str, str]:
        """What ``doctor`` looks at: version, appendonly, maxmemory-policy; empty where the server tells nothing."""
        with store_errors():
            info = self._client.info()
        return {
            "version": f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version')}",
            "appendonly": "yes" if info.get("aof_enabled") else "no",
            "maxmemory-policy": str(info.get("maxmemory_policy", "")),
        }

    def _now_ms(self) -> int:
        with store_errors():
            seconds, micros = self._client.time()
        return seconds * 1000 + micros // 1000

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _members(self, name: str, start: int = 0, end: int = -1, *, newest_first: bool = False) -> list[str]:
        """The members of a sorted set by rank, lowest score first unless ``newest_first``."""
        with store_errors():
            found = self._client.zrange(self._key(name), start, end, desc=newest_first)
        return [text(member) for member in cast("list[bytes]", found)]


def text(value: Any) -> str:
    """A reply as text; empty for none."""
    if value is None:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def decoded(row: Mapping[bytes, bytes]) -> dict[str, str]:
    """A hash as text."""
    return {text(name): text(value) for name, value in row.items()}
