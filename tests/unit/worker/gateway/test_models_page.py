"""``docs/models.md``: every block of it is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tatin_jobs.models import Model
from tatin_jobs.settings import Settings
from worker.gateway.providers import PRESETS, api_root, select_provider
from worker.gateway.rules import PATHS

PAGE = (Path(__file__).parents[4] / "docs" / "models.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


def settings(toml: str) -> Settings:
    return Settings(home=Path("/nowhere"), worker_name="w", **tomllib.loads(toml))


@pytest.mark.parametrize("toml", blocks("toml"))
def test_each_block_of_settings_is_good(toml: str) -> None:
    (provider,) = settings(toml).models.values()
    assert api_root(provider)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_job_line_finds_its_provider(text: str) -> None:
    lines = YAML(typ="safe").load(text)
    assert lines.keys() <= {"model", "env"}
    model = Model.model_validate(lines["model"])
    known = settings("\n".join(block for block in blocks("toml")))
    name, _ = select_provider(known, model)
    assert name == model.provider


def test_table_is_that_of_the_presets() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\S+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert {name: address for name, address, _ in rows} == {name: p.base_url for name, p in PRESETS.items()}
    for name, _, key in rows:
        assert key == (f"variable `{PRESETS[name].key_env}` of the worker" if PRESETS[name].key_env else "none")


def test_every_path_that_crosses_is_named() -> None:
    assert all(f"`{method} {path}`" in PAGE for paths in PATHS.values() for method, path in paths)
