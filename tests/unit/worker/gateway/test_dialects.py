"""Which API an attempt speaks: the best that tool and server have in common, or a refusal that says what to use."""

from __future__ import annotations

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Reason
from worker.agents import ADAPTERS
from worker.gateway import PRESETS, speaking


@pytest.mark.parametrize(
    ("provider", "tool", "api"),
    [
        ("openai", "opencode", "openai"),
        ("anthropic", "opencode", "anthropic"),
        ("anthropic", "claude", "anthropic"),
        ("ollama", "claude", "anthropic"),
        ("ollama", "pi", "openai"),
        ("lmstudio", "claude", "anthropic"),
        ("vllm", "claude", "anthropic"),
        ("vllm", "crush", "openai"),
    ],
)
def test_each_preset_speaks_what_the_tool_can(provider: str, tool: str, api: str) -> None:
    chosen, settled = speaking(provider, PRESETS[provider], tool, ADAPTERS[tool].apis)
    assert (chosen, settled.api) == (api, api)


def test_section_of_a_known_server_that_names_no_api_has_that_of_its_preset() -> None:
    elsewhere = ModelProvider(base_url="http://192.0.2.1:11434")
    assert speaking("ollama", elsewhere, "claude", ["anthropic"])[0] == "anthropic"
    with pytest.raises(AttemptError):
        speaking("mine", elsewhere, "claude", ["anthropic"])


@pytest.mark.parametrize("name", ["openai", "mlx"])
def test_claude_with_a_server_of_openais_api_is_told_what_to_use(name: str) -> None:
    with pytest.raises(AttemptError, match=r"use `tool: opencode` or `tool: pi`") as refused:
        speaking(name, PRESETS[name], "claude", ["anthropic"])
    assert refused.value.reason is Reason.REFUSED, "a failing provider would be probed and tried again"
    assert 'api = "both"' in (refused.value.try_ or "")
