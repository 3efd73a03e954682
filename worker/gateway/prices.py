"""What a model's tokens cost: ``<home>/prices.toml``, which is the user's, before the list that is shipped.

A model that stands in neither has no known cost, which is not 0. Only a file says that something is free.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tatin_jobs.errors import AttemptError
from tatin_jobs.home import Home
from tatin_jobs.settings import ModelProvider, Settings
from tatin_jobs.states import Reason
from worker.gateway.providers import PRESETS, same_server
from worker.gateway.tokens import KINDS, Tokens

SHIPPED = Path(__file__).parent / "prices.toml"


class Price(BaseModel):
    """US dollars per million tokens. A kind of cache that has no price of its own costs what ``input`` does."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float | None = Field(default=None, ge=0)
    cache_write: float | None = Field(default=None, ge=0)

    def cost_usd(self, tokens: Tokens) -> float:
        """What these tokens cost; a kind that was not told counts for nothing."""
        total = 0.0
        for kind in KINDS:
            price = getattr(self, kind)
            total += (getattr(tokens, kind) or 0) * (self.input if price is None else price)
        return total / 1_000_000


def price_of(settings: Settings, name: str, provider: ModelProvider, model: str) -> Price | None:
    """The price of ``model`` at provider ``name``; None: unknown.

    The shipped list counts only for a provider at its usual address (another server under that name is not it) and for
    keys: a subscription is not paid by the token.

    Raises:
        AttemptError: reason worker; the user's file cannot be used.
    """
    own = Home(settings.home).root / "prices.toml"
    found = _look_up(own, name, model) if own.exists() else None
    preset = PRESETS.get(name)
    if found is None and preset and not provider.subscription and same_server(preset.base_url, provider.base_url):
        found = _look_up(SHIPPED, name, model)
    return found


def check_prices(settings: Settings) -> int | None:
    """How many prices the user's own file has; None when there is none. Raises AttemptError, as ``price_of``."""
    path = Home(settings.home).root / "prices.toml"
    if not path.exists():
        return None
    listed = _read(path)
    return sum(
        _price(path, name, listed, pattern) is not None for name in listed for pattern in _models(path, name, listed)
    )


def _models(path: Path, name: str, listed: Mapping[str, Any]) -> Mapping[str, Any]:
    models = listed.get(name, {})
    if not isinstance(models, dict):
        raise _wrong(path, f"'{name}' is not a table of models.")
    return models


def _price(path: Path, name: str, listed: Mapping[str, Any], pattern: str) -> Price:
    try:
        return Price.model_validate(listed[name][pattern])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, pattern, *(str(part) for part in first["loc"])])
        raise _wrong(path, f"'{where}': {first['msg']}.") from error


def _look_up(path: Path, name: str, model: str) -> Price | None:
    listed = _read(path)
    fitting = [pattern for pattern in _models(path, name, listed) if fnmatchcase(model, pattern)]
    if not fitting:
        return None
    return _price(path, name, listed, model if model in fitting else max(fitting, key=len))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(path, str(error)) from error


def _wrong(path: Path, seen: str) -> AttemptError:
    return AttemptError(
        f"The price file '{path}' cannot be used.",
        seen=seen,
        try_='write [provider."model"] with input and output in US dollars per million tokens.',
        reason=Reason.WORKER,
    )
