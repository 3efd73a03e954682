"""What tokens cost, and that an unknown price is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.settings import ModelProvider, load_settings
from worker.gateway.prices import SHIPPED, Price, _read, price_of
from worker.gateway.providers import PRESETS
from worker.gateway.tokens import Tokens


def price(home: Path, name: str, model: str, provider: ModelProvider | None = None) -> Price | None:
    return price_of(load_settings({"TATIN_HOME": str(home)}), name, provider or PRESETS[name], model)


def test_tokens_cost_by_kind_and_a_cache_without_a_price_as_input() -> None:
    tokens = Tokens(input=1_000_000, output=100_000, cache_read=2_000_000, cache_write=None)
    assert Price(input=3, output=15, cache_read=0.3).cost_usd(tokens) == pytest.approx(3 + 1.5 + 0.6)
    assert Price(input=3, output=15).cost_usd(tokens) == pytest.approx(3 + 1.5 + 6)


def test_shipped_prices_are_of_known_models_at_their_own_address_only(tmp_path: Path) -> None:
    assert price(tmp_path, "openai", "gpt-5-mini-2025-08-07") == Price(input=0.25, output=2, cache_read=0.025)
    assert price(tmp_path, "openai", "gpt-99") is None
    elsewhere = ModelProvider(base_url="http://127.0.0.1:4000")
    assert price(tmp_path, "openai", "gpt-5-mini", elsewhere) is None


def test_local_provider_is_free_only_when_the_file_says_so(tmp_path: Path) -> None:
    assert price(tmp_path, "ollama", "qwen3") is None
    (tmp_path / "prices.toml").write_text('[ollama]\n"*" = {input = 0, output = 0}\n')
    free = price(tmp_path, "ollama", "qwen3")
    assert free is not None
    assert free.cost_usd(Tokens(input=10**9)) == 0


def test_users_file_comes_first_and_the_longest_name_counts(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        '[openai]\n"gpt-5*" = {input = 1, output = 1}\n"gpt-5-mini*" = {input = 2, output = 2}\n'
    )
    found = [price(tmp_path, "openai", model) for model in ("gpt-5", "gpt-5-mini", "gpt-4.1")]
    assert [item and item.input for item in found] == [1, 2, 2]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("[openai", "Expected"),
        ("openai = 1", "'openai'"),
        ('[openai]\n"*" = {input = -1, output = 1}', "openai.*.input"),
        ('[openai]\n"*" = {input = 1}', "openai.*.output"),
        ('[openai]\n"*" = {input = 1, output = nan}', "openai.*.output"),
        ('[openai]\n"*" = {input = 1, output = 1, currency = 2}', "openai.*.currency"),
    ],
)
def test_bad_price_file_is_one_clear_error(tmp_path: Path, text: str, seen: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(AttemptError, match=r"prices\.toml") as caught:
        price(tmp_path, "openai", "x")
    assert seen in (caught.value.seen or "")


def test_every_shipped_price_can_be_read() -> None:
    for name, models in _read(SHIPPED).items():
        assert name in PRESETS
        for listed in models.values():
            Price.model_validate(listed)
