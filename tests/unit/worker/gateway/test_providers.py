"""Which model server a job gets, and at which address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import Model
from tatin_jobs.settings import ModelProvider, Settings
from tatin_jobs.states import Reason
from worker.gateway.providers import PRESETS, api_root, select_provider


def settings(**models: str) -> Settings:
    providers = {name: ModelProvider(base_url=address) for name, address in models.items()}
    return Settings(home=Path("/srv/someone/.tatin"), worker_name="w", models=providers)


def test_presets_are_the_addresses_that_these_servers_have() -> None:
    assert {name: str(api_root(provider)) for name, provider in PRESETS.items()} == {
        "ollama": "http://127.0.0.1:11434/v1",
        "lmstudio": "http://127.0.0.1:1234/v1",
        "vllm": "http://127.0.0.1:8000/v1",
        "mlx": "http://127.0.0.1:8080/v1",
        "openai": "https://api.openai.com/v1",
        "anthropic": "https://api.anthropic.com/v1",
    }
    assert {name: provider.key_env for name, provider in PRESETS.items() if provider.key_env} == {
        "openai": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
    }
    assert [name for name, provider in PRESETS.items() if provider.api == "anthropic"] == ["anthropic"]


@pytest.mark.parametrize(
    ("api", "base_url", "root"),
    [
        ("openai", "http://host:8000", "http://host:8000/v1"),
        ("openai", "http://host:8000/", "http://host:8000/v1"),
        ("openai", "http://host:8000/v1/", "http://host:8000/v1"),
        ("openai", "https://host/api/v1", "https://host/api/v1"),
        ("openai", "https://host/v4/paas", "https://host/v4/paas"),
        ("openai", "http://[::1]:8000", "http://[::1]:8000/v1"),
        ("anthropic", "https://host", "https://host/v1"),
        ("anthropic", "https://host/v1", "https://host/v1"),
        ("anthropic", "https://host/anthropic", "https://host/anthropic/v1"),
    ],
)
def test_address_is_read_as_the_usual_clients_read_it(api: str, base_url: str, root: str) -> None:
    assert str(api_root(ModelProvider.model_validate({"api": api, "base_url": base_url}))) == root


@pytest.mark.parametrize(
    "address",
    ["", "host:8000", "ftp://host", "http://", "http://host:99999", "http://host:0", "http://user:secret@host",
     "http://host?key=secret", "http://host#secret", "http://[::1"],
)  # fmt: skip
def test_address_that_cannot_be_used_is_refused_without_what_may_be_a_key(address: str) -> None:
    with pytest.raises(AttemptError, match="cannot be used") as refused:
        api_root(ModelProvider(base_url=address))
    assert refused.value.reason is Reason.PROVIDER
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("models", "model", "chosen", "address"),
    [
        ({}, Model(name="m", provider="ollama"), "ollama", "http://127.0.0.1:11434"),
        ({"ollama": "http://box:1"}, Model(name="m", provider="ollama"), "ollama", "http://box:1"),
        ({"mine": "http://box:1"}, Model(name="m"), "mine", "http://box:1"),
        ({"mine": "http://box:1"}, Model(name="m", base_url="http://BOX:1/v1/"), "mine", "http://box:1"),
        ({"mine": "https://box"}, Model(name="m", base_url="https://box:443"), "mine", "https://box"),
        ({"mine": "http://127.0.0.1:11434"}, Model(name="m", base_url="http://127.0.0.1:11434"), "mine", None),
        ({}, Model(name="m", base_url="http://127.0.0.1:1234/v1"), "lmstudio", None),
        ({"a": "http://box:1"}, Model(name="m", provider="a", base_url="http://box:1"), "a", None),
    ],
)
def test_provider_that_a_job_gets(models: dict[str, str], model: Model, chosen: str, address: str | None) -> None:
    name, provider = select_provider(settings(**models), model)
    assert name == chosen
    assert address is None or provider.base_url == address


@pytest.mark.parametrize(
    ("models", "model", "said"),
    [
        ({}, Model(name="m"), "names no provider"),
        ({"a": "http://a", "b": "http://b"}, Model(name="m"), "names no provider"),
        ({}, Model(name="m", provider="olama"), "no model provider 'olama'"),
        ({}, Model(name="m", base_url="http://169.254.169.254"), "not one that this worker's settings allow"),
        ({"a": "http://a"}, Model(name="m", provider="a", base_url="http://b"), "is not at 'http://b'"),
        ({"a": "http://a"}, Model(name="m", base_url="https://a"), "not one that this worker's settings allow"),
        ({"a": "http://a:1"}, Model(name="m", base_url="http://u:secret@evil:1"), "not one that"),
        ({"a": "http://a:1"}, Model(name="m", base_url="http://a:x"), "not one that"),
    ],
)
def test_address_that_is_not_in_the_settings_is_never_reached(models: dict[str, str], model: Model, said: str) -> None:
    with pytest.raises(AttemptError, match=said) as refused:
        select_provider(settings(**models), model)
    assert refused.value.reason is Reason.PROVIDER
    assert "ollama" in str(refused.value)
    assert "secret" not in str(refused.value)
