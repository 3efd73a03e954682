"""Open the store that the settings name: the embedded Valkey of this home, or the Redis of a fleet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tatin_jobs.embedded import embedded_server
from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings
from tatin_jobs.store.scripts import connect, shown_url
from tatin_jobs.store.store import Store


@contextmanager
def open_store(settings: Settings, home: Home) -> Iterator[Store]:
    """The store, reached and of a schema that this Tatin knows. The embedded server ends with its last client.

    Raises:
        StoreUnavailable: it cannot be reached or started; the message never shows a password.
    """
    if settings.redis_url is None:
        home.prepare()
        with embedded_server(home) as socket_path:
            yield _opened(f"unix://{socket_path}", f"the embedded Valkey of '{home.root}'")
    else:
        yield _opened(settings.redis_url, f"'{shown_url(settings.redis_url)}'")


def _opened(url: str, name: str) -> Store:
    try:
        store = Store(connect(url))
        store.prepare()
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"The store, {name}, cannot be used.",
            seen=error.seen or error.what,
            try_="start it, or correct TATIN_REDIS_URL; without that variable Tatin runs a store of its own.",
        ) from error
    except ValueError as error:
        raise StoreUnavailable(f"{name} is no Redis address.", try_="write it as rediss://host:port/0.") from error
    return store
