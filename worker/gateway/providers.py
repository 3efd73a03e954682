"""Which model server a job gets: the worker's ``[models.<provider>]``, or a preset for the servers that people know.

A job names a provider, never an address that the worker does not already have: its ``base_url`` only chooses among
the addresses that are in the settings (design, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from yarl import URL

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import Model
from tatin_jobs.settings import ModelProvider, Settings
from tatin_jobs.states import Reason

PRESETS: Mapping[str, ModelProvider] = {
    "ollama": ModelProvider(base_url="http://127.0.0.1:11434", api="both"),
    "lmstudio": ModelProvider(base_url="http://127.0.0.1:1234", api="both"),
    "vllm": ModelProvider(base_url="http://127.0.0.1:8000", api="both"),
    "mlx": ModelProvider(base_url="http://127.0.0.1:8080"),
    "openai": ModelProvider(base_url="https://api.openai.com", key_env="OPENAI_API_KEY"),
    "anthropic": ModelProvider(base_url="https://api.anthropic.com", api="anthropic", key_env="ANTHROPIC_API_KEY"),
}
"""Used for a name that the settings do not define themselves. Ollama (since 0.14), LM Studio and vLLM (since 0.11.1)
have Anthropic's ``/v1/messages`` as well."""


def select_provider(settings: Settings, model: Model) -> tuple[str, ModelProvider]:
    """(name, provider) for ``model``.

    Without ``provider`` and ``base_url`` it is the only one in the settings. A settings' section goes before the preset
    of the same name.

    Raises:
        AttemptError: reason provider; no such section, more than one fits, or the address is not one of the settings'.
    """
    known = {**PRESETS, **settings.models}
    if model.provider is not None:
        if model.provider not in known:
            raise _refused(f"This worker knows no model provider '{model.provider}'.", settings, model.provider, model)
        provider = known[model.provider]
        if model.base_url is not None and not same_server(model.base_url, provider.base_url):
            what = f"Model provider '{model.provider}' of this worker is not at '{_shown(model.base_url)}'."
            raise _refused(what, settings, model.provider, model)
        return model.provider, provider
    if model.base_url is not None:
        for name in [*settings.models, *PRESETS]:
            if same_server(known[name].base_url, model.base_url):
                return name, known[name]
        what = f"The address '{_shown(model.base_url)}' is not one that this worker's settings allow."
        raise _refused(what, settings, "custom", model)
    if len(settings.models) == 1:
        return next(iter(settings.models.items()))
    names = ", ".join(sorted(known))
    raise AttemptError(
        f"Model '{model.name}' names no provider, and this worker has no single one to take.",
        seen=f"providers that it knows: {names}",
        try_=f"write `model: {{name: {model.name}, provider: ollama}}` with one of these.",
        reason=Reason.PROVIDER,
    )


def api_root(provider: ModelProvider) -> URL:
    """The address under which the paths of the dialect lie: ``.../v1``.

    An OpenAI address with a path is taken as an OpenAI client takes it (``https://host/api/v1``); without one, ``/v1``
    is added. An Anthropic address is without ``/v1``, as in ANTHROPIC_BASE_URL; with it, it means the same.

    Raises:
        AttemptError: reason provider; the setting is no plain http or https address.
    """
    text = provider.base_url
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username or parts.password:
        raise AttemptError(
            f"The address '{_shown(text)}' of a model provider cannot be used.",
            try_="write base_url as http://host:port or https://host/path, without a key, `?` or `#`.",
            reason=Reason.PROVIDER,
        )
    path = parts.path.rstrip("/")
    if provider.api == "anthropic":
        path = path.removesuffix("/v1") + "/v1"
    return URL(f"{parts.scheme}://{parts.netloc}{path or '/v1'}")


def same_server(one: str, other: str) -> bool:
    """Whether two addresses are the same server's."""
    return _same(one) == _same(other)


def host_and_port(provider: ModelProvider) -> str:
    """Where a provider is, as a result tells it. Raises AttemptError as ``api_root``."""
    root = api_root(provider)
    return f"{f'[{root.host}]' if ':' in (root.host or '') else root.host}:{root.port}"


def _same(address: str) -> object:
    """Two addresses are the same server when this is equal; an unreadable one equals nothing."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return object()
    return parts.scheme, (parts.hostname or "").lower(), port, parts.path.rstrip("/").removesuffix("/v1")


def _shown(address: str) -> str:
    """The address for people, without what may be a key in it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "(unreadable)"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"[:200]


def _refused(what: str, settings: Settings, section: str, model: Model) -> AttemptError:
    address = _shown(model.base_url) if model.base_url else "http://127.0.0.1:11434"
    return AttemptError(
        what,
        seen="providers that it knows: " + ", ".join(sorted({*PRESETS, *settings.models})),
        try_=f"add to {settings.home / 'tatin.toml'} on the worker a section [models.{section}] with"
        f' base_url = "{address}".',
        reason=Reason.PROVIDER,
    )
