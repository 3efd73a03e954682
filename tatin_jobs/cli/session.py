"""What most commands begin with: the settings, the home and the open store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tatin_jobs.home import Home
from tatin_jobs.settings import Settings, load_settings
from tatin_jobs.store import Store, open_store


@dataclass(frozen=True)
class Session:
    """One command's view of the world. ``store`` is thread-safe."""

    settings: Settings
    home: Home
    store: Store


@contextmanager
def open_session(flags: Mapping[str, Any] | None = None) -> Iterator[Session]:
    """The settings of this environment with these flags, and their store, until the context is left.

    Raises:
        BadInput: a setting is wrong. StoreUnavailable: the store cannot be reached or started.
    """
    settings = load_settings(os.environ, flags)
    home = Home(settings.home)
    with open_store(settings, home) as store:
        yield Session(settings, home, store)


def now() -> datetime:
    """The present, aware and UTC."""
    return datetime.now(UTC)
