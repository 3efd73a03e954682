"""``docs/models.md``: every block of it is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tatin_jobs.models import Model
from tatin_jobs.settings import Settings
from worker.gateway.prices import Price, price_of
from worker.gateway.providers import PRESETS, api_root, select_provider
from worker.gateway.rules import PATHS

PAGE = (Path(__file__).parents[4] / "docs" / "models.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


def settings_blocks() -> list[str]:
    return [block for block in blocks("toml") if "[models." in block]


def settings(toml: str) -> Settings:
    return Settings(home=Path("/nowhere"), worker_name="w", **tomllib.loads(toml))


@pytest.mark.parametrize("toml", settings_blocks())
def test_each_block_of_settings_is_good(toml: str) -> None:
    (provider,) = settings(toml).models.values()
    assert api_root(provider)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_job_line_finds_its_provider(text: str) -> None:
    lines = YAML(typ="safe").load(text)
    assert lines.keys() <= {"model", "env"}
    model = Model.model_validate(lines["model"])
    known = settings("\n".join(settings_blocks()))
    name, _ = select_provider(known, model)
    assert name == model.provider


def test_block_of_prices_is_good(tmp_path: Path) -> None:
    (prices,) = (block for block in blocks("toml") if "[models." not in block)
    (tmp_path / "prices.toml").write_text(prices)
    known = Settings(home=tmp_path, worker_name="w")
    price = price_of(known, "openai", PRESETS["openai"], "gpt-5-mini")
    assert price
    assert (price.input, price.output, price.cache_read) == (0.25, 2, 0.025)
    assert price_of(known, "ollama", PRESETS["ollama"], "anything") == Price(input=0, output=0)


def test_table_is_that_of_the_presets() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\S+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert {name: address for name, address, _ in rows} == {name: p.base_url for name, p in PRESETS.items()}
    for name, _, key in rows:
        assert key == (f"variable `{PRESETS[name].key_env}` of the worker" if PRESETS[name].key_env else "none")


def test_every_path_that_crosses_is_named() -> None:
    assert all(f"`{method} {path}`" in PAGE for paths in PATHS.values() for method, path in paths)
