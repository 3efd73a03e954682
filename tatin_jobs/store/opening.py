"""Open the store that the settings name: the embedded Valkey of this home, or the Redis of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from tatin_jobs.embedded import embedded_server, revive
from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings
from tatin_jobs.store.scripts import connect, shown_url
from tatin_jobs.store.store import Store


@contextmanager
def open_store(settings: Settings, home: Home) -> Iterator[Store]:
    """The store, reached and of a schema that this Tatin knows. The embedded server ends with its last client, and is
    started again when it dies before that.

    Raises:
        StoreUnavailable: it cannot be reached or started; the message never shows a password.
    """
    if settings.redis_url is None:
        home.prepare()
        with embedded_server(home) as socket_path, _reviving(home) as again:
            with _opened(f"unix://{quote(str(socket_path))}", f"the embedded Valkey of '{home.root}'", again) as store:
                yield store
    else:
        with _opened(settings.redis_url, f"'{shown_url(settings.redis_url)}'") as store:
            yield store


@contextmanager
def _reviving(home: Home) -> Iterator[Callable[[], None]]:
    """What starts this home's server again, as long as its store is open here."""
    is_open = True
    try:
        yield lambda: revive(home, lambda: is_open)
    finally:
        is_open = False


@contextmanager
def _opened(url: str, name: str, again: Callable[[], None] | None = None) -> Iterator[Store]:
    try:
        store = Store(connect(url), revive=again)
        store.prepare()
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"The store, {name}, cannot be used.",
            seen=error.seen or error.what,
            try_="start it, or correct TATIN_REDIS_URL; without that variable Tatin runs a store of its own.",
        ) from error
    except ValueError as error:
        raise StoreUnavailable(f"{name} is no Redis address.", try_="write it as rediss://host:port/0.") from error
    try:
        yield store
    finally:
        store.close()
